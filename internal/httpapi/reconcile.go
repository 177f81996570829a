package httpapi

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/ecreds/issuer/internal/issue"
)

// reconcile answers how a batch stands. It takes as long as the platform takes
// to tell of each certificate; a caller who leaves ends it.
func (a *api) reconcile(w http.ResponseWriter, r *http.Request) error {
	request, err := readReconcile(r)
	if err != nil {
		return err
	}
	note(r, zap.String("batch", string(request.Batch)), zap.Bool("fix", request.Fix))
	if err := withoutDeadline(w); err != nil {
		return err
	}
	found, err := a.Reconciler.Reconcile(r.Context(), request)
	if err != nil {
		return fmt.Errorf("reconcile batch %s: %w", request.Batch, err)
	}
	note(r, zap.Int("missing", found.Missing.Count), zap.Int("queued", found.Queued))
	return a.succeed(w, r, map[string]any{"reconcile": newReconcileView(request, found)})
}

// withoutDeadline lifts the server's limit of writing an answer. That of reading
// ended when the request was read.
func withoutDeadline(w http.ResponseWriter) error {
	err := http.NewResponseController(w).SetWriteDeadline(time.Time{})
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("lift the deadline: %w", err)
	}
	return nil
}

// reconcileMembers are all that a request may have. What is not understood is
// refused: who narrows a request by a member of /issue must not have the whole
// batch queued.
var reconcileMembers = []string{"batchId", "courseId", "collectionId", "certificate", "validate", "fix"}

func readReconcile(r *http.Request) (issue.ReconcileRequest, error) {
	body, err := readBody(r)
	if err != nil {
		return issue.ReconcileRequest{}, err
	}
	fields, err := requestMember(body)
	if err != nil {
		return issue.ReconcileRequest{}, err
	}
	request, err := fields.reconcileRequest()
	if err != nil {
		return issue.ReconcileRequest{}, err
	}
	if err := refuseDryRun(r); err != nil {
		return issue.ReconcileRequest{}, err
	}
	switch fix := r.URL.Query().Get("fix"); {
	case strings.EqualFold(fix, "true"):
		request.Fix = true
	case fix != "" && !strings.EqualFold(fix, "false"):
		return issue.ReconcileRequest{}, invalidValue("fix", fix)
	}
	return request, nil
}

func (m members) reconcileRequest() (issue.ReconcileRequest, error) {
	var request issue.ReconcileRequest
	course, err := m.mandatory("courseId", "collectionId")
	if err != nil {
		return request, err
	}
	batch, err := m.mandatory("batchId")
	if err != nil {
		return request, err
	}
	request.Batch, request.Course = issue.BatchID(batch), issue.CourseID(course)
	if request.Certificate, err = m.certificate(); err != nil {
		return request, err
	}
	if request.Validate, err = m.boolean("validate", true); err != nil {
		return request, err
	}
	if request.Fix, err = m.boolean("fix", false); err != nil {
		return request, err
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(reconcileMembers, name) {
			return request, invalidValue(name, show(m[name]))
		}
	}
	return request, nil
}

// boolean reads true or false; null and absent are otherwise.
func (m members) boolean(name string, otherwise bool) (bool, error) {
	switch value := m[name].(type) {
	case nil:
		return otherwise, nil
	case bool:
		return value, nil
	default:
		return false, typeError(name, "Boolean")
	}
}

// reconcileView is a reconciliation as the answer has it; docs/issuance.md
// defines its words.
type reconcileView struct {
	BatchID      string                 `json:"batchId"`
	CourseID     string                 `json:"courseId"`
	Certificates []string               `json:"certificates"`
	Eligible     int                    `json:"eligible"`
	Counts       map[string]int         `json:"counts"`
	Validated    int                    `json:"validated"`
	Missing      findingView            `json:"missing"`
	Lost         findingView            `json:"lost"`
	Duplicate    findingView            `json:"duplicate"`
	Orphaned     findingView            `json:"orphaned"`
	Elsewhere    findingView            `json:"elsewhere"`
	Unchecked    map[string]findingView `json:"unchecked"`
	Fix          bool                   `json:"fix"`
	Queued       int                    `json:"queued"`
	Jobs         []issue.JobID          `json:"jobs,omitempty"`
	Recount      recountView            `json:"recount"`
}

type findingView struct {
	Count   int               `json:"count"`
	Samples []issue.LearnerID `json:"samples,omitempty"`
}

type recountView struct {
	Jobs       int       `json:"jobs"`
	Unresolved int       `json:"unresolved"`
	Wrong      int       `json:"wrong"`
	Corrected  int       `json:"corrected"`
	Samples    []sumView `json:"samples,omitempty"`
}

type sumView struct {
	JobID   string `json:"jobId"`
	Kind    string `json:"kind"`
	Name    string `json:"name,omitempty"`
	Kept    int    `json:"kept"`
	Counted int    `json:"counted"`
}

func newReconcileView(request issue.ReconcileRequest, found issue.Reconciliation) reconcileView {
	counts := counted(found.States)
	counts["issued"] = found.Issued
	unchecked := map[string]findingView{}
	for why, finding := range found.Unchecked {
		unchecked[string(why)] = findingView(finding)
	}
	return reconcileView{
		BatchID: string(request.Batch), CourseID: string(request.Course), Certificates: found.Certificates,
		Eligible: found.Eligible, Counts: counts, Validated: found.Validated,
		Missing: findingView(found.Missing), Lost: findingView(found.Lost), Duplicate: findingView(found.Duplicate),
		Orphaned: findingView(found.Orphaned), Elsewhere: findingView(found.Elsewhere), Unchecked: unchecked,
		Fix: request.Fix, Queued: found.Queued, Jobs: found.Jobs, Recount: newRecountView(found.Recount),
	}
}

func newRecountView(r issue.Recount) recountView {
	view := recountView{Jobs: r.Jobs, Unresolved: r.Unresolved, Wrong: len(r.Wrong), Corrected: r.Corrected}
	for _, sum := range r.Wrong[:min(len(r.Wrong), issue.MaxSamples)] {
		view.Samples = append(view.Samples, sumView{
			JobID: string(sum.Job), Kind: sum.Kind, Name: sum.Name, Kept: sum.Kept, Counted: sum.Counted,
		})
	}
	return view
}
