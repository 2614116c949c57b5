"""`invoke compare`: what each orchestrator does with one dbt project, measured, in one page."""
