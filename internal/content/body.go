package content

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

func readCourse(answer sunbird.Answer, id issue.CourseID) (issue.Course, error) {
	envelope, err := answer.Envelope()
	if err != nil {
		return issue.Course{}, answer.Bad(err)
	}
	var result struct {
		Content *struct {
			Name         sunbird.Text    `json:"name"`
			CertTemplate json.RawMessage `json:"certTemplate"`
		} `json:"content"`
	}
	if err := json.Unmarshal(envelope.Result, &result); err != nil {
		return issue.Course{}, answer.Bad(err)
	}
	if result.Content == nil {
		return issue.Course{}, answer.Bad(&sunbird.BadAnswerError{What: "an answer without the course"})
	}
	templates, err := readTemplates(result.Content.CertTemplate)
	if err != nil {
		return issue.Course{}, err
	}
	return issue.Course{ID: id, Name: string(result.Content.Name), Templates: templates}, nil
}

// readTemplates accepts a list, a single map, either of them as JSON text, or
// nothing. An entry without a name is left out: nobody can ask for it.
func readTemplates(raw json.RawMessage) ([]issue.Template, error) {
	raw = plain(raw)
	var entries []json.RawMessage
	switch kind(raw) {
	case 0:
		return nil, nil
	case '[':
		if err := json.Unmarshal(raw, &entries); err != nil {
			return nil, unreadable("certTemplate of the course is not JSON")
		}
	case '{':
		entries = []json.RawMessage{raw}
	default:
		return nil, unreadable("certTemplate of the course is neither a list nor a map")
	}
	var templates []issue.Template
	for _, entry := range entries {
		template, err := readTemplate(entry)
		if err != nil {
			return nil, err
		}
		if template.Name != "" {
			templates = append(templates, template)
		}
	}
	return templates, nil
}

// entry is one certTemplate, its members still as they stand: each may be an
// object, or that object as JSON text.
type entry struct {
	Name           sunbird.Text    `json:"name"`
	HTMLTemplate   sunbird.Text    `json:"htmlTemplate"`
	Issuer         json.RawMessage `json:"issuer"`
	SignatoryList  json.RawMessage `json:"signatoryList"`
	Keys           json.RawMessage `json:"keys"`
	Criteria       json.RawMessage `json:"criteria"`
	NotifyTemplate json.RawMessage `json:"notifyTemplate"`
}

// readTemplate ignores members of unexpected types, as if they were missing:
// cert-service then names what is missing, for everybody to see. Keys are the
// exception: without them it would make a certificate without a signature.
func readTemplate(raw json.RawMessage) (issue.Template, error) {
	var e entry
	if !object(raw, &e) {
		return issue.Template{}, nil
	}
	template := issue.Template{
		Name: strings.TrimSpace(string(e.Name)), HTMLTemplate: strings.TrimSpace(string(e.HTMLTemplate)),
		Signatories: readSignatories(e.SignatoryList),
	}
	var issuer struct {
		Name      sunbird.Text    `json:"name"`
		URL       sunbird.Text    `json:"url"`
		PublicKey json.RawMessage `json:"publicKey"`
	}
	if object(e.Issuer, &issuer) {
		template.Issuer = issue.Issuer{
			Name: string(issuer.Name), URL: string(issuer.URL), PublicKeys: texts(issuer.PublicKey),
		}
	}
	var criteria struct {
		Narrative sunbird.Text `json:"narrative"`
	}
	if object(e.Criteria, &criteria) {
		template.Narrative = string(criteria.Narrative)
	}
	var notify map[string]json.RawMessage
	if object(e.NotifyTemplate, &notify) && len(notify) > 0 {
		template.Notify = notify
	}
	var ok bool
	if template.KeyID, ok = readKeyID(e.Keys); !ok {
		return issue.Template{}, unreadable(fmt.Sprintf("keys of the template %q cannot be read", template.Name))
	}
	return template, nil
}

// readKeyID finds the signing key in keys: an object with an id, or the bare id
// where somebody wrote that. Neither keys nor id: the certificate is not signed.
func readKeyID(raw json.RawMessage) (string, bool) {
	raw = plain(raw)
	switch kind(raw) {
	case 0:
		return "", true
	case '{':
		var keys struct {
			ID json.RawMessage `json:"id"`
		}
		if json.Unmarshal(raw, &keys) != nil {
			return "", false
		}
		return keyText(keys.ID)
	default:
		return keyText(raw)
	}
}

func keyText(raw json.RawMessage) (string, bool) {
	switch k := kind(raw); {
	case k == 0:
		return "", true
	case k == '"', k == '-', k >= '0' && k <= '9':
		var id sunbird.Text
		err := json.Unmarshal(raw, &id)
		return strings.TrimSpace(string(id)), err == nil
	default:
		return "", false
	}
}

func readSignatories(raw json.RawMessage) []issue.Signatory {
	raw = plain(raw)
	entries := []json.RawMessage{raw}
	if kind(raw) == '[' && json.Unmarshal(raw, &entries) != nil {
		return nil
	}
	var signatories []issue.Signatory
	for _, one := range entries {
		var s struct {
			Name        sunbird.Text `json:"name"`
			ID          sunbird.Text `json:"id"`
			Designation sunbird.Text `json:"designation"`
			Image       sunbird.Text `json:"image"`
		}
		if object(one, &s) {
			signatories = append(signatories, issue.Signatory{
				Name: string(s.Name), ID: string(s.ID), Designation: string(s.Designation), Image: string(s.Image),
			})
		}
	}
	return signatories
}

// texts reads a list of texts or numbers, or a single one.
func texts(raw json.RawMessage) []string {
	raw = plain(raw)
	var list []sunbird.Text
	if kind(raw) == '[' {
		if json.Unmarshal(raw, &list) != nil {
			return nil
		}
	} else {
		var one sunbird.Text
		if kind(raw) == 0 || json.Unmarshal(raw, &one) != nil {
			return nil
		}
		list = append(list, one)
	}
	var all []string
	for _, text := range list {
		if text != "" {
			all = append(all, string(text))
		}
	}
	return all
}

// object decodes a map, or a map as JSON text; false = it is neither.
func object(raw json.RawMessage, into any) bool {
	raw = plain(raw)
	return kind(raw) == '{' && json.Unmarshal(raw, into) == nil
}

// plain unwraps JSON that stands as text inside JSON, which is how the platform
// stores what it has no type for. Other text stays as it is.
func plain(raw json.RawMessage) json.RawMessage {
	raw = bytes.TrimSpace(raw)
	if kind(raw) != '"' {
		return raw
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return raw
	}
	inner := json.RawMessage(strings.TrimSpace(text))
	if len(inner) == 0 {
		return nil
	}
	if k := kind(inner); (k == '{' || k == '[') && json.Valid(inner) {
		return inner
	}
	return raw
}

// kind is the first byte of a value, which tells its type; 0 = absent or null.
func kind(raw json.RawMessage) byte {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return 0
	}
	return raw[0]
}
