"""GTE: gte-multilingual-base and snowflake-arctic-embed-m-v2.0."""
