package certsvc

import (
	"net/http"
	"strings"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// ruling is what words of the service mean.
type ruling struct {
	verdict issue.Verdict
	reason  issue.Reason
}

// rulings tell what a text means that the service answers with 400 or 500. Its
// status says nothing: 500 is a bad date, an unknown key, a broken template or
// a store that is away. The first row whose start fits holds. (Seen on
// 1.0.0 and 3.9.0; in brackets where it is not obvious.)
//
// bad_request is kept for what is wrong with the recipient: every other failure
// counts against the template.
var rulings = []struct {
	start string
	ruling
}{
	{"mandatory parameter certificate.data", ruling{issue.Permanent, issue.ReasonBadRequest}},
	// The root organisation is the learner's; 1.0.0 refuses one without it.
	{"mandatory parameter certificate.orgid", ruling{issue.Permanent, issue.ReasonBadRequest}},
	{"mandatory parameter certificate.", ruling{issue.Permanent, issue.ReasonTemplate}},
	// "certificate is missing": the body did not arrive. Ours, or a proxy's.
	{"mandatory parameter certificate ", ruling{issue.Permanent, issue.ReasonRejected}},
	{"requested data for this operation is not valid", ruling{issue.Permanent, issue.ReasonRejected}},
	// [keys unknown, master or a word; enc-service answers with a page]
	{"unable to create signature: unexpected character ('<'", ruling{issue.Permanent, issue.ReasonSigningKey}},
	// [enc-service is down: "Connect to … failed: Connection refused"]
	{"unable to create signature", ruling{issue.Transient, issue.ReasonUnavailable}},
	{"issued date is not in ", ruling{issue.Permanent, issue.ReasonRejected}},
	{"given expiry date is invalid", ruling{issue.Permanent, issue.ReasonRejected}},
	// [the cloud store is down]
	{"failed to upload", ruling{issue.Transient, issue.ReasonUnavailable}},
	{"error_uploading_certificate", ruling{issue.Transient, issue.ReasonUnavailable}},
	{"print-service", ruling{issue.Transient, issue.ReasonUnavailable}},
}

// parameters tell which member a text of the form "Invalid value … for
// parameter <name>." complains about.
var parameters = []struct {
	start  string
	reason issue.Reason
}{
	{"htmltemplate", issue.ReasonTemplate},
	{"certificate.htmltemplate", issue.ReasonTemplate},
	{"certificate.issuer.publickey", issue.ReasonSigningKey},
	{"certificate.data", issue.ReasonBadRequest},
}

// classify gives the verdict on a generate call that did not answer 200.
func classify(answer sunbird.Answer) *issue.Failure {
	failure := answer.Failure()
	switch answer.Status {
	case http.StatusBadRequest, http.StatusInternalServerError:
	default:
		return failure
	}
	if answer.HTML() {
		failure.Reason = issue.ReasonRejected // 400: the framework could not read the body
		if answer.Status == http.StatusInternalServerError {
			failure.Reason = issue.ReasonTimeout // the service's own deadline has passed
		}
		return failure
	}
	words := strings.ToLower(strings.TrimSpace(answer.Words()))
	if answer.Status == http.StatusBadRequest {
		failure.Reason = issue.ReasonRejected
		if strings.HasPrefix(words, "invalid value") {
			failure.Reason = invalidParameter(words)
			return failure
		}
	}
	for _, r := range rulings {
		if strings.HasPrefix(words, r.start) {
			failure.Verdict, failure.Reason = r.verdict, r.reason
			return failure
		}
	}
	return failure // the generic 500 among them: a repetition may cure it
}

// invalidParameter reads the name at the end: the value before it may hold
// anything.
func invalidParameter(words string) issue.Reason {
	const phrase = " for parameter "
	i := strings.LastIndex(words, phrase)
	if i < 0 {
		return issue.ReasonRejected
	}
	for _, p := range parameters {
		if strings.HasPrefix(words[i+len(phrase):], p.start) {
			return p.reason
		}
	}
	return issue.ReasonRejected
}
