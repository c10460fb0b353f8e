"""The local web page: watch jobs, ask models, compare rankings, and judge documents."""
