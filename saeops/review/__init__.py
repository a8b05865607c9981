"""Review: the queue, the ledger's rules, what decisions mean."""
