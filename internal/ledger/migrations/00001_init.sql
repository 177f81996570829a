-- Times are epoch milliseconds; flags are 0 or 1; absent times are NULL. The
-- words are SQLite's; what PostgreSQL spells otherwise is replaced when they are
-- read (postgresWords).
-- +goose Up

-- One accepted /issue call, or the standing job of a batch and certificate that
-- gathers events made elsewhere.
CREATE TABLE jobs (
    id              TEXT   PRIMARY KEY,
    batch_id        TEXT   NOT NULL,
    course_id       TEXT   NOT NULL,
    certificates    TEXT   NOT NULL, -- JSON list of names
    filter          TEXT   NOT NULL, -- JSON
    re_issue        BIGINT NOT NULL,
    state           TEXT   NOT NULL, -- running, paused, cancelled
    eligible        BIGINT NOT NULL,
    estimate        BIGINT NOT NULL,
    resolved        BIGINT NOT NULL,
    read_to         TEXT   NOT NULL, -- the fan-out's cursor
    created_by      TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    trace_parent    TEXT   NOT NULL,
    idempotency_key TEXT   UNIQUE,
    fingerprint     TEXT   NOT NULL
);
CREATE INDEX jobs_unresolved ON jobs (created_at) WHERE resolved = 0;
CREATE INDEX jobs_batch ON jobs (batch_id, created_at);

-- One learner's certificate in a batch under one name. Out: its record is in
-- Kafka or being worked. due_at is set exactly while it is in and unfinished.
CREATE TABLE issuances (
    seq              INTEGER PRIMARY KEY, -- in the order of creation, which is mostly that of work: rows that are
                                          -- changed together lie together, here and in the tables that name it
    id               TEXT   NOT NULL UNIQUE,
    batch_id         TEXT   NOT NULL,
    user_id          TEXT   NOT NULL,
    course_id        TEXT   NOT NULL,
    certificate      TEXT   NOT NULL,
    completed_on     BIGINT NOT NULL,
    job_id           TEXT   NOT NULL, -- the job that it is dispatched for
    wanted_by        BIGINT NOT NULL DEFAULT 1, -- how many jobs want it; mostly 1, and then it is job_id
    revision         BIGINT NOT NULL DEFAULT 1, -- the one being worked
    last_revision    BIGINT NOT NULL DEFAULT 1, -- the newest asked for
    state            TEXT   NOT NULL DEFAULT 'queued',
    step             TEXT   NOT NULL DEFAULT '',
    attempts         BIGINT NOT NULL DEFAULT 0,
    rounds           BIGINT NOT NULL DEFAULT 0,
    reason           TEXT   NOT NULL DEFAULT '',
    http_status      BIGINT NOT NULL DEFAULT 0,
    message          TEXT   NOT NULL DEFAULT '',
    first_failed_at  BIGINT,
    replays          BIGINT NOT NULL DEFAULT 0,
    issued_at        BIGINT,                    -- when some revision was first registered
    updated_at       BIGINT NOT NULL,
    is_out           BIGINT NOT NULL DEFAULT 0,
    dispatch         BIGINT NOT NULL DEFAULT 0, -- number of the last dispatch
    due_at           BIGINT,
    taken_at         BIGINT,
    record_partition BIGINT,
    record_offset    BIGINT,
    claim_token      TEXT,
    claim_process    TEXT,
    claim_until      BIGINT,
    crashes          BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX issuances_due ON issuances (job_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX issuances_out ON issuances (job_id) WHERE is_out = 1;
CREATE INDEX issuances_user ON issuances (user_id, batch_id);

-- Which jobs want which issuances.
CREATE TABLE job_issuances (
    job_id   TEXT   NOT NULL,
    user_id  TEXT   NOT NULL,
    issuance BIGINT NOT NULL, -- its seq
    PRIMARY KEY (job_id, user_id, issuance)
) WITHOUT ROWID;
CREATE INDEX job_issuances_issuance ON job_issuances (issuance);

-- Learners whom a job passes over.
CREATE TABLE job_skips (
    job_id      TEXT   NOT NULL,
    user_id     TEXT   NOT NULL,
    certificate TEXT   NOT NULL,
    reason      TEXT   NOT NULL,
    at          BIGINT NOT NULL,
    PRIMARY KEY (job_id, user_id, certificate)
);

-- Sums shown to people, kept in the transaction that changes the rows; nothing
-- decides by them. kind: state, issued, failed or skipped. The sum of a name is
-- that of its shards: every process adds to a shard of its own, for two that add
-- to one row would wait for each other's commits.
CREATE TABLE job_counts (
    job_id   TEXT   NOT NULL,
    kind     TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    shard    BIGINT NOT NULL,
    n        BIGINT NOT NULL,
    moved_at BIGINT NOT NULL, -- when it last changed
    PRIMARY KEY (job_id, kind, name, shard)
) WITHOUT ROWID;

-- 1 = first issue, +1 for each re-issue; one per cause.
CREATE TABLE revisions (
    issuance       BIGINT NOT NULL, -- its seq
    revision       BIGINT NOT NULL,
    cause          TEXT   NOT NULL,
    old_id         TEXT   NOT NULL, -- the certificate it replaces
    certificate_id TEXT   NOT NULL DEFAULT '',
    access_code    TEXT   NOT NULL DEFAULT '',
    pdf_url        TEXT   NOT NULL DEFAULT '',
    json_url       TEXT   NOT NULL DEFAULT '',
    json_data      TEXT ,  -- the signed assertion; dropped once registered and notified
    register_at    BIGINT, -- first attempt to register; the id is fixed from then on
    registered_at  BIGINT,
    email          TEXT   NOT NULL DEFAULT 'pending',
    sms            TEXT   NOT NULL DEFAULT 'pending',
    created_at     BIGINT NOT NULL,
    PRIMARY KEY (issuance, revision)
);

CREATE TABLE issuance_history (
    issuance BIGINT NOT NULL, -- its seq
    at       BIGINT NOT NULL,
    n        BIGINT NOT NULL, -- among the lines that were written together
    revision BIGINT NOT NULL,
    state    TEXT   NOT NULL,
    step     TEXT   NOT NULL,
    attempts BIGINT NOT NULL,
    reason   TEXT   NOT NULL,
    message  TEXT   NOT NULL,
    PRIMARY KEY (issuance, at, n, state)
) WITHOUT ROWID;

-- Whose ledger this is: one row, written when it was first opened.
CREATE TABLE installation (
    id   BIGINT PRIMARY KEY, -- 1
    name TEXT   NOT NULL
);

-- One row for each start of a consumer; its claims end with it.
CREATE TABLE processes (
    id         TEXT   PRIMARY KEY,
    name       TEXT   NOT NULL,
    capacity   BIGINT NOT NULL, -- events that it works at once
    allowed    BIGINT NOT NULL, -- of those, what its limiters let through now
    finished   BIGINT NOT NULL, -- events in the five seconds before seen_at
    started_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL
);

-- Which process does a task that one alone does.
CREATE TABLE leases (
    task   TEXT   PRIMARY KEY,
    holder TEXT   NOT NULL, -- fresh for each start of a process
    until  BIGINT NOT NULL
);

-- Index of the dead-letter topic. The index is the truth.
CREATE TABLE dead_letters (
    id               TEXT   PRIMARY KEY,
    issuance_id      TEXT   NOT NULL, -- '' for poison
    job_id           TEXT   NOT NULL,
    class            TEXT   NOT NULL,
    step             TEXT   NOT NULL,
    reason           TEXT   NOT NULL,
    http_status      BIGINT NOT NULL,
    message          TEXT   NOT NULL,
    attempts         BIGINT NOT NULL,
    replays          BIGINT NOT NULL,
    record_partition BIGINT NOT NULL,
    record_offset    BIGINT NOT NULL,
    first_failed_at  BIGINT NOT NULL,
    failed_at        BIGINT NOT NULL,
    state            TEXT   NOT NULL -- open, redriven, discarded
);
CREATE INDEX dead_letters_issuance ON dead_letters (issuance_id);
CREATE INDEX dead_letters_open ON dead_letters (failed_at) WHERE state = 'open';

-- Which root organisation holds which signing or encryption key.
CREATE TABLE signing_keys (
    key_id   TEXT   NOT NULL,
    purpose  TEXT   NOT NULL, -- sign or enc
    org_id   TEXT   NOT NULL,
    org_name TEXT   NOT NULL,
    comment  TEXT   NOT NULL,
    added_by TEXT   NOT NULL,
    added_at BIGINT NOT NULL,
    PRIMARY KEY (key_id)
);

-- Templates as a job met them: which made a certificate, which are broken.
CREATE TABLE templates (
    job_id      TEXT   NOT NULL,
    certificate TEXT   NOT NULL,
    proven_at   BIGINT,          -- when it first made a certificate
    broken_at   BIGINT,
    probe_at    BIGINT,          -- when one learner is tried; set exactly while it is broken
    PRIMARY KEY (job_id, certificate)
);

-- Learners for whom a template failed since it last worked.
CREATE TABLE template_doubts (
    job_id      TEXT NOT NULL,
    certificate TEXT NOT NULL,
    user_id     TEXT NOT NULL,
    PRIMARY KEY (job_id, certificate, user_id)
);

CREATE TABLE audit (
    at      BIGINT NOT NULL,
    actor   TEXT   NOT NULL,
    action  TEXT   NOT NULL,
    subject TEXT   NOT NULL,
    detail  TEXT   NOT NULL
);
CREATE INDEX audit_at ON audit (at);

-- +goose Down
DROP TABLE audit;
DROP TABLE template_doubts;
DROP TABLE templates;
DROP TABLE signing_keys;
DROP TABLE dead_letters;
DROP TABLE leases;
DROP TABLE processes;
DROP TABLE installation;
DROP TABLE issuance_history;
DROP TABLE revisions;
DROP TABLE job_counts;
DROP TABLE job_skips;
DROP TABLE job_issuances;
DROP TABLE issuances;
DROP TABLE jobs;
