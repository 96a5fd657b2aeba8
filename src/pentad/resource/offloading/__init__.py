"""At which site a request is computed: here, on another machine of ours, or at somebody else's."""
