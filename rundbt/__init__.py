"""What the three orchestrators share: the project's state, the jobs, dbt's results and a small HTTP client.

Standard library only, because it is imported in three different locked environments.
"""
