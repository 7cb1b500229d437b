"""Where batches are sent: a Lambda function, a web server, a Python callable, a script for tests.

Each file fulfils ``ports.Target``.  What one answer means is decided here once per target: *failed* (it saw the
event, or may have: a retry is spent) or *refused* (it did not: wait, nothing is spent).  Any doubt is *failed*, so
that a record that kills its target ends as a poison record and not as an outage.
"""
