"""Entry points for cron and pipelines: each is a ``dosctl`` command under a name of its own."""
