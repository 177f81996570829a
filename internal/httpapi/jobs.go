package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"

	"github.com/ecreds/issuer/internal/issue"
)

// jobsNeed is what reading a job cannot do without.
const jobsNeed = "The ledger"

const (
	defaultLimit = 100
	maxLimit     = 1000
	// maxCursor bounds a cursor, in characters: it names a learner and a place,
	// in a coding that makes them longer.
	maxCursor = 2048
	// stateSkipped is the state shown for learners of the batch who get no
	// certificate from the job.
	stateSkipped = "skipped"
)

// job answers one job.
func (a *api) job(w http.ResponseWriter, r *http.Request) error {
	progress, err := a.find(r)
	if err != nil {
		return err
	}
	return a.succeed(w, r, map[string]any{"job": newJobView(progress)})
}

// learners answers one page of a job's learners, or all of them as CSV.
func (a *api) learners(w http.ResponseWriter, r *http.Request) error {
	query, err := learnerQuery(r)
	if err != nil {
		return err
	}
	progress, err := a.find(r)
	if err != nil {
		return err
	}
	query.Job = progress.ID
	w.Header().Add("Vary", "Accept")
	if wantsCSV(r) {
		return a.learnersCSV(w, r, query)
	}
	page, err := a.Jobs.Learners(r.Context(), query)
	if err != nil {
		return fmt.Errorf("read the learners of job %s: %w", query.Job, err)
	}
	return a.succeed(w, r, newLearnersView(page))
}

// find reads the job that the path names.
func (a *api) find(r *http.Request) (issue.JobProgress, error) {
	id := chi.URLParam(r, "id")
	unknown := notFoundError(fmt.Sprintf("No such jobId exists: %s", cut(id, 100)))
	if id != cleanID(id) { // no id of ours; not worth a look into the ledger
		return issue.JobProgress{}, unknown
	}
	note(r, zap.String("job", id))
	progress, found, err := a.Jobs.Job(r.Context(), issue.JobID(id))
	if err != nil {
		return issue.JobProgress{}, fmt.Errorf("read job %s: %w", id, err)
	}
	if !found {
		return issue.JobProgress{}, unknown
	}
	note(r, zap.String("batch", string(progress.Batch)))
	return progress, nil
}

func learnerQuery(r *http.Request) (issue.LearnerQuery, error) {
	given := r.URL.Query()
	query := issue.LearnerQuery{State: given.Get("state"), Cursor: given.Get("cursor"), Limit: defaultLimit}
	if query.State != "" && query.State != stateSkipped && !slices.Contains(issue.States(), issue.State(query.State)) {
		return query, invalidValue("state", query.State)
	}
	if !harmlessText(query.Cursor, maxCursor) {
		return query, invalidValue("cursor", query.Cursor)
	}
	limit := given.Get("limit")
	if limit == "" {
		return query, nil
	}
	n, err := strconv.Atoi(limit)
	if err != nil || n < 1 || n > maxLimit {
		return query, invalidValue("limit", limit)
	}
	query.Limit = n
	return query, nil
}

// jobView is a job as design and api/openapi.yaml have it.
type jobView struct {
	JobID        string         `json:"jobId"`
	BatchID      string         `json:"batchId"`
	CourseID     string         `json:"courseId"`
	Certificates []string       `json:"certificates,omitempty"`
	ReIssue      bool           `json:"reIssue"`
	State        issue.JobState `json:"state"`
	CreatedAt    time.Time      `json:"createdAt,omitzero"`
	CreatedBy    string         `json:"createdBy,omitempty"`
	Eligible     int            `json:"eligible"`
	Counts       map[string]int `json:"counts"`
	SkippedBy    map[string]int `json:"skippedBy"`
	FailedBy     map[string]int `json:"failedBy,omitempty"`
	Resolved     bool           `json:"resolved"`
	Done         bool           `json:"done"`
	Healthy      bool           `json:"healthy"`
	Reasons      []string       `json:"reasons,omitempty"`
}

func newJobView(p issue.JobProgress) jobView {
	counts, reasons := counted(p.Counts), p.Reasons()
	counts["issued"] = p.Issued
	view := jobView{
		JobID: string(p.ID), BatchID: string(p.Batch), CourseID: string(p.Course), Certificates: p.Certificates,
		ReIssue: p.ReIssue, State: p.State, CreatedAt: p.CreatedAt.UTC(), CreatedBy: p.CreatedBy, Eligible: p.Eligible,
		Counts: counts, SkippedBy: everySkipReason(p.Skipped), FailedBy: counted(p.FailedBy),
		Resolved: p.Resolved, Done: p.Done(), Healthy: len(reasons) == 0, Reasons: reasons,
	}
	if view.Done {
		view.State = issue.JobDone
	}
	return view
}

// counted leaves out what there is none of.
func counted[K ~string](counts map[K]int) map[string]int {
	some := map[string]int{}
	for what, n := range counts {
		if n != 0 {
			some[string(what)] = n
		}
	}
	return some
}

type learnersView struct {
	Learners []learnerView `json:"learners"`
	Next     string        `json:"next,omitempty"`
}

// learnerView is one learner of a job.
type learnerView struct {
	UserID        string    `json:"userId"`
	IssuanceID    string    `json:"issuanceId,omitempty"`
	State         string    `json:"state"`
	Step          string    `json:"step,omitempty"`
	Attempts      int       `json:"attempts,omitempty"`
	Reason        string    `json:"reason,omitempty"`
	Message       string    `json:"message,omitempty"`
	CertificateID string    `json:"certificateId,omitempty"`
	Revision      int       `json:"revision,omitempty"`
	UpdatedAt     time.Time `json:"updatedAt,omitzero"`
	Due           time.Time `json:"due,omitzero"`
}

func newLearnersView(page issue.LearnerPage) learnersView {
	view := learnersView{Learners: []learnerView{}, Next: page.Next}
	for _, learner := range page.Learners {
		view.Learners = append(view.Learners, newLearnerView(learner))
	}
	return view
}

func newLearnerView(l issue.LearnerProgress) learnerView {
	return learnerView{
		UserID: string(l.Learner), IssuanceID: string(l.Issuance), State: l.State, Step: string(l.Step),
		Attempts: l.Attempts, Reason: l.Reason, Message: l.Message, CertificateID: l.CertificateID,
		Revision: l.Revision, UpdatedAt: l.UpdatedAt.UTC(), Due: l.Due.UTC(),
	}
}

// wantsCSV says whether CSV is what the caller names first.
func wantsCSV(r *http.Request) bool {
	for media := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		media, _, _ = strings.Cut(media, ";")
		switch strings.ToLower(strings.TrimSpace(media)) {
		case "text/csv":
			return true
		case "application/json", "*/*":
			return false
		}
	}
	return false
}
