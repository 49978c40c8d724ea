"""The commit of this checkout, looked up once for all forked processes: it may change while the tests run."""

from orchard import software

software.commit()
