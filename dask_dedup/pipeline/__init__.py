"""The whole chain: stages, finders, the run, the audit."""
