package httpapi

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/ecreds/issuer/internal/issue"
)

// pageDeadline is how long one page of a CSV may take to reach the caller; the
// whole may take as long as it has pages.
const pageDeadline = time.Minute

var csvHeader = []string{
	"userId", "issuanceId", "state", "step", "attempts", "reason", "message", "certificateId", "revision", "updatedAt",
	"due",
}

// learnersCSV streams every page from the query's cursor on, so that memory
// holds one page of a batch of any size. The first page is read before the
// answer begins, so that its errors are answered like others.
func (a *api) learnersCSV(w http.ResponseWriter, r *http.Request, query issue.LearnerQuery) error {
	query.Limit = maxLimit
	page, err := a.Jobs.Learners(r.Context(), query)
	if err != nil {
		return fmt.Errorf("read the learners of job %s: %w", query.Job, err)
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8; header=present")
	w.Header().Set("Content-Disposition", `attachment; filename="learners.csv"`)
	if err := a.streamCSV(w, r, query, page); err != nil {
		// Too late for a status: cut the connection, or the caller takes a part
		// for the whole.
		note(r, zap.Error(err))
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (a *api) streamCSV(w http.ResponseWriter, r *http.Request, query issue.LearnerQuery, page issue.LearnerPage) error {
	out := csv.NewWriter(w)
	if err := out.Write(csvHeader); err != nil {
		return fmt.Errorf("write the header row: %w", err)
	}
	for {
		if err := sendPage(w, out, page); err != nil {
			return err
		}
		if page.Next == "" {
			return nil
		}
		if page.Next == query.Cursor {
			return fmt.Errorf("the page after %q leads to itself", query.Cursor)
		}
		query.Cursor = page.Next
		var err error
		if page, err = a.Jobs.Learners(r.Context(), query); err != nil {
			return fmt.Errorf("read the learners of job %s: %w", query.Job, err)
		}
	}
}

func sendPage(w http.ResponseWriter, out *csv.Writer, page issue.LearnerPage) error {
	control := http.NewResponseController(w)
	if err := control.SetWriteDeadline(time.Now().Add(pageDeadline)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("move the deadline: %w", err)
	}
	for _, learner := range page.Learners {
		if err := out.Write(csvRow(newLearnerView(learner))); err != nil {
			return fmt.Errorf("write a row: %w", err)
		}
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("write a page: %w", err)
	}
	if err := control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("send a page: %w", err)
	}
	return nil
}

func csvRow(v learnerView) []string {
	row := []string{
		v.UserID, v.IssuanceID, v.State, v.Step, number(v.Attempts), v.Reason, v.Message, v.CertificateID,
		number(v.Revision), moment(v.UpdatedAt), moment(v.Due),
	}
	for i := range row {
		row[i] = harmless(row[i])
	}
	return row
}

// harmless puts an apostrophe before what a spreadsheet would run as a formula
// (https://owasp.org/www-community/attacks/CSV_Injection): messages are the
// words of other services.
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}
