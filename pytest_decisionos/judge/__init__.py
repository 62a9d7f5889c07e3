"""Rules × source → votes → quorum → decision."""
