"""How a plan is carried out by engines that others have written."""
