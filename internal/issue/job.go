package issue

import "time"

// JobState is what people have decided about a job, or that it is over.
type JobState string

// The states of a job. Done is derived, never stored.
const (
	JobRunning   JobState = "running"
	JobPaused    JobState = "paused"
	JobCancelled JobState = "cancelled"
	JobDone      JobState = "done"
)

// JobStates lists every job state, for metrics that start at zero.
func JobStates() []JobState { return []JobState{JobRunning, JobPaused, JobCancelled, JobDone} }

// Job is one accepted /issue call.
type Job struct {
	ID           JobID
	Batch        BatchID
	Course       CourseID
	Certificates []string // certificate names, as the course spells them
	Filter       Filter
	ReIssue      bool
	State        JobState
	Eligible     int // learners; as counted at acceptance, exact once resolved
	Estimate     bool
	Skipped      map[SkipReason]int
	Cursor       string // where the fan-out goes on
	Resolved     bool   // the fan-out has read the whole batch
	CreatedBy    string
	CreatedAt    time.Time
	TraceParent  string
}

// JobProgress is a job as people see it.
type JobProgress struct {
	Job
	Counts   map[State]int // issuances by state
	Issued   int           // issuances registered at least once
	FailedBy map[Reason]int
	Broken   bool // one of its templates fails for everybody
	Stalled  bool // unfinished, and nothing has moved for five minutes
}

// Unfinished counts the issuances that will still move by themselves.
func (p JobProgress) Unfinished() int {
	n := 0
	for state, count := range p.Counts {
		if !state.Final() {
			n += count
		}
	}
	return n
}

// Done says that nothing of the job will move without somebody acting.
func (p JobProgress) Done() bool { return p.Resolved && p.State == JobRunning && p.Unfinished() == 0 }

// Reasons says why a job is not healthy; none = healthy.
func (p JobProgress) Reasons() []string {
	var reasons []string
	if p.Broken {
		reasons = append(reasons, "template")
	}
	if p.Counts[Failed] > 0 {
		reasons = append(reasons, "failed")
	}
	if p.Stalled {
		reasons = append(reasons, "stalled")
	}
	return reasons
}

// LearnerProgress is one learner of a job as people see it.
type LearnerProgress struct {
	Learner       LearnerID
	Issuance      IssuanceID
	State         string // a State, or "skipped"
	Step          Step
	Attempts      int
	Reason        string
	Message       string
	CertificateID string
	Revision      int
	UpdatedAt     time.Time
	Due           time.Time // when it is tried again; zero when it is not waiting
}

// LearnerQuery asks for one page of a job's learners, in the order of their
// ids.
type LearnerQuery struct {
	Job    JobID
	State  string // "" = every state
	Cursor string // "" = from the start; otherwise the Next of the page before
	Limit  int
}

// LearnerPage is one page; Next is empty on the last.
type LearnerPage struct {
	Learners []LearnerProgress
	Next     string
}
