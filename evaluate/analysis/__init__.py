"""Numbers from records: intervals, tests, exchange rate, verdict.

A pure function of the records; `analyse` calls the rest.
"""
