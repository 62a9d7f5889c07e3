"""dosctl, a file a noun."""
