"""What is said: events, the OCS GE nomenclature, the legal rules, the policy. Data, no I/O."""
