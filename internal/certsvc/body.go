package certsvc

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// defaultNarrative is what the platform's consumer says when a template says
// nothing: since 1.1.0 the service refuses a certificate without it.
const defaultNarrative = "course completion certificate"

// The one body that cert-service takes in every era, with its members in the
// order of the service's own documents. Both date members hold the same day:
// 1.0.0 reads issueDate only, later ones issuedDate only. What is absent is
// left out, since null counts as present.
type (
	generateRequest struct {
		Request struct {
			Certificate certificateRequest `json:"certificate"`
		} `json:"request"`
	}

	certificateRequest struct {
		Name         string      `json:"name"`
		CourseName   string      `json:"courseName"`
		HTMLTemplate string      `json:"htmlTemplate"`
		Issuer       issuer      `json:"issuer"`
		Signatories  []signatory `json:"signatoryList"`
		Data         []recipient `json:"data"`
		Tag          string      `json:"tag"`
		OrgID        string      `json:"orgId,omitempty"`
		Keys         *keys       `json:"keys,omitempty"`
		IssuedDate   string      `json:"issuedDate"`
		IssueDate    string      `json:"issueDate"`
		Criteria     criteria    `json:"criteria"`
		BasePath     string      `json:"basePath,omitempty"`
	}

	issuer struct {
		Name      string   `json:"name"`
		URL       string   `json:"url"`
		PublicKey []string `json:"publicKey,omitempty"`
	}

	signatory struct {
		Name        string `json:"name"`
		ID          string `json:"id"`
		Designation string `json:"designation"`
		Image       string `json:"image"`
	}

	recipient struct {
		Name string `json:"recipientName"`
		ID   string `json:"recipientId"`
	}

	keys struct {
		ID string `json:"id"`
	}

	// criteria holds the narrative and nothing else: another member is a 500 in
	// 3.9.0.
	criteria struct {
		Narrative string `json:"narrative"`
	}
)

func generateBody(r issue.GenerateRequest, basePath string) ([]byte, error) {
	day := r.IssuedOn.Format(time.DateOnly)
	certificate := certificateRequest{
		Name:         r.Template.Name,
		CourseName:   r.Course.Name,
		HTMLTemplate: r.Template.HTMLTemplate,
		Issuer: issuer{
			Name: r.Template.Issuer.Name, URL: r.Template.Issuer.URL, PublicKey: r.Template.Issuer.PublicKeys,
		},
		Signatories: make([]signatory, 0, len(r.Template.Signatories)),
		Data:        []recipient{{Name: r.Recipient.FullName(), ID: string(r.Recipient.ID)}},
		Tag:         tag(r.Recipient.RootOrg, r.Batch),
		OrgID:       r.Recipient.RootOrg,
		IssuedDate:  day,
		IssueDate:   day,
		Criteria:    criteria{Narrative: r.Template.Narrative},
		BasePath:    basePath,
	}
	for _, s := range r.Template.Signatories {
		certificate.Signatories = append(certificate.Signatories, signatory(s))
	}
	if r.Template.KeyID != "" {
		certificate.Keys = &keys{ID: r.Template.KeyID}
	}
	if strings.TrimSpace(certificate.Criteria.Narrative) == "" {
		certificate.Criteria.Narrative = defaultNarrative
	}
	var body generateRequest
	body.Request.Certificate = certificate
	return sunbird.JSON(body)
}

// tag names the folder of the certificate's files: root organisation and batch,
// or the batch alone. The service refuses every punctuation but "_" in it.
func tag(rootOrg string, batch issue.BatchID) string {
	name := string(batch)
	if rootOrg != "" {
		name = rootOrg + "_" + name
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
			return r
		default:
			return '_'
		}
	}, name)
}

// readCertificate takes the certificate from an answer. An answer for somebody
// else is none; one that names nobody is accepted, as 1.0.0 answers null.
// RawMessage keeps the assertion as it was sent, byte for byte.
func readCertificate(answer sunbird.Answer, learner issue.LearnerID) (issue.Certificate, error) {
	if err := answer.Whole(); err != nil {
		return issue.Certificate{}, err
	}
	// The whole answer in one go: reading the frame first would read the
	// certificate, which is most of it, twice.
	var frame struct {
		Result struct {
			Response []struct {
				ID          sunbird.Text    `json:"id"`
				AccessCode  sunbird.Text    `json:"accessCode"`
				RecipientID sunbird.Text    `json:"recipientId"`
				PDFURL      sunbird.Text    `json:"pdfUrl"`
				JSONURL     sunbird.Text    `json:"jsonUrl"`
				JSONData    json.RawMessage `json:"jsonData"`
			} `json:"response"`
		} `json:"result"`
	}
	if err := sunbird.Decode(answer.Body, &frame); err != nil {
		return issue.Certificate{}, err
	}
	result := frame.Result
	if len(result.Response) == 0 || strings.TrimSpace(string(result.Response[0].ID)) == "" {
		return issue.Certificate{}, &sunbird.BadAnswerError{What: "an answer without a certificate"}
	}
	made := result.Response[0]
	if made.RecipientID != "" && string(made.RecipientID) != string(learner) {
		return issue.Certificate{}, &sunbird.BadAnswerError{What: "the certificate of somebody else"}
	}
	return issue.Certificate{
		ID: string(made.ID), AccessCode: string(made.AccessCode), PDFURL: string(made.PDFURL),
		JSONURL: string(made.JSONURL), JSONData: made.JSONData,
	}, nil
}
