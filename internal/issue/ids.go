package issue

import (
	"crypto/sha256"
	"encoding/hex"
)

// Identifiers have types of their own, so that two of them cannot change
// places unnoticed. All are opaque text; batch ids look like numbers but
// exceed what a float can hold.
type (
	// LearnerID is the platform's user id of a learner.
	LearnerID string
	// BatchID is the id of a course batch.
	BatchID string
	// CourseID is the content id of a course (or collection).
	CourseID string
	// JobID names one accepted /issue call.
	JobID string
	// IssuanceID names one learner's certificate in a batch under one
	// certificate name, over all its revisions.
	IssuanceID string
)

// NewIssuanceID derives the id of an issuance: the lower-case hex SHA-256 of
// "batch_learner_certificate", as the platform's events have had it in
// object.id since 2.3.5. Equal inputs give equal ids, which is what makes two
// overlapping jobs meet in one row.
func NewIssuanceID(batch BatchID, learner LearnerID, certificate string) IssuanceID {
	sum := sha256.Sum256([]byte(string(batch) + "_" + string(learner) + "_" + certificate))
	return IssuanceID(hex.EncodeToString(sum[:]))
}
