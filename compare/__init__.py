"""`invoke compare`: measures what each orchestrator does with the same dbt project, and writes one page."""
