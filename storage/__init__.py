"""The record: PostgreSQL, and nothing else. Others know it by Protocols; drivers and SQL stay in here.

    schema.sql   the tables as they are             migrations/, migrate   how an older database gets there
    queries.sql  every statement, by name           pool, errors           connections and the border
    access       on whose behalf, who sees what     settings               section `postgres`
    ports        what the record can do             memory                 the twins of all repositories
    setup        role and database, made or only looked at                  rows      rows into records
    keys, deployments, catalog, requests, archive   store                  all of them over one pool

What clients sent is never stored; what models said only sealed, in the archive, for as long as it is kept.
"""
