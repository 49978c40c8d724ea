"""The report page, its figures and files: a pure function of the analysis."""
