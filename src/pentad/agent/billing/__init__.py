"""What runs cost and whom the money belongs to: metered per contributor, split exactly, kept in a ledger."""
