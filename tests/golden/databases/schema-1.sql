CREATE TABLE approvals (
	id VARCHAR NOT NULL,
	incident_id VARCHAR NOT NULL,
	step_id VARCHAR NOT NULL,
	kind VARCHAR NOT NULL,
	digest VARCHAR NOT NULL,
	tier INTEGER NOT NULL,
	summary TEXT NOT NULL,
	diff TEXT NOT NULL,
	requester VARCHAR NOT NULL,
	status VARCHAR NOT NULL,
	requested_at VARCHAR(27) NOT NULL,
	expires_at VARCHAR(27) NOT NULL,
	ttl_seconds INTEGER NOT NULL,
	answer VARCHAR,
	decided_by VARCHAR,
	decided_at VARCHAR(27),
	reason TEXT DEFAULT '' NOT NULL,
	self_approved BOOLEAN NOT NULL,
	use_by VARCHAR(27),
	used_at VARCHAR(27),
	PRIMARY KEY (id),
	FOREIGN KEY(incident_id) REFERENCES incidents (id),
	FOREIGN KEY(step_id) REFERENCES steps (id)
);
CREATE TABLE decisions (
	id VARCHAR NOT NULL,
	incident_id VARCHAR NOT NULL,
	number INTEGER NOT NULL,
	call_key VARCHAR,
	role VARCHAR NOT NULL,
	at VARCHAR(27) NOT NULL,
	body TEXT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (incident_id, number),
	UNIQUE (incident_id, call_key),
	FOREIGN KEY(incident_id) REFERENCES incidents (id)
);
CREATE TABLE effects (
	"key" VARCHAR NOT NULL,
	incident_id VARCHAR NOT NULL,
	step_id VARCHAR NOT NULL,
	digest VARCHAR NOT NULL,
	approval_id VARCHAR,
	state VARCHAR NOT NULL,
	intended_at VARCHAR(27) NOT NULL,
	completed_at VARCHAR(27),
	settled_by VARCHAR,
	outcome TEXT,
	rollback_intended_at VARCHAR(27),
	rollback_completed_at VARCHAR(27),
	rollback_attempts INTEGER NOT NULL,
	rollback_outcome TEXT,
	PRIMARY KEY ("key"),
	FOREIGN KEY(incident_id) REFERENCES incidents (id),
	FOREIGN KEY(step_id) REFERENCES steps (id),
	UNIQUE (approval_id),
	FOREIGN KEY(approval_id) REFERENCES approvals (id)
);
CREATE TABLE events (
	incident_id VARCHAR NOT NULL,
	seq INTEGER NOT NULL,
	call_key VARCHAR,
	kind VARCHAR NOT NULL,
	at VARCHAR(27) NOT NULL,
	body TEXT NOT NULL,
	PRIMARY KEY (incident_id, seq),
	UNIQUE (incident_id, call_key),
	FOREIGN KEY(incident_id) REFERENCES incidents (id)
);
CREATE TABLE evidence (
	incident_id VARCHAR NOT NULL,
	number INTEGER NOT NULL,
	call_key VARCHAR NOT NULL,
	body TEXT NOT NULL,
	PRIMARY KEY (incident_id, number),
	UNIQUE (incident_id, call_key),
	FOREIGN KEY(incident_id) REFERENCES incidents (id)
);
CREATE TABLE incidents (
	id VARCHAR NOT NULL,
	fingerprint VARCHAR NOT NULL,
	status VARCHAR NOT NULL,
	severity VARCHAR NOT NULL,
	alert TEXT NOT NULL,
	alert_count INTEGER NOT NULL,
	opened_at VARCHAR(27) NOT NULL,
	updated_at VARCHAR(27) NOT NULL,
	ended_at VARCHAR(27),
	summary TEXT DEFAULT '' NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE steps (
	id VARCHAR NOT NULL,
	incident_id VARCHAR NOT NULL,
	number INTEGER NOT NULL,
	call_key VARCHAR,
	status VARCHAR NOT NULL,
	digest VARCHAR NOT NULL,
	created_at VARCHAR(27) NOT NULL,
	updated_at VARCHAR(27) NOT NULL,
	body TEXT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (incident_id, number),
	UNIQUE (incident_id, call_key),
	FOREIGN KEY(incident_id) REFERENCES incidents (id)
);
CREATE TABLE watchkeeper_meta (
	name VARCHAR NOT NULL,
	value VARCHAR NOT NULL,
	PRIMARY KEY (name)
);
CREATE INDEX incidents_by_time ON incidents (opened_at);
CREATE UNIQUE INDEX one_live_incident_a_fingerprint ON incidents (fingerprint) WHERE status NOT IN ('resolved', 'escalated', 'closed');
CREATE INDEX approvals_by_status ON approvals (status, expires_at);
CREATE INDEX effects_by_state ON effects (state);
