"""What follows from audits: state, retraining, alerts. Decided from the registry's records and the time alone."""
