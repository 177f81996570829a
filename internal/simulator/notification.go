package simulator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Message is a notification that was accepted, one for each recipient.
type Message struct {
	At           time.Time `json:"at"`
	UserID       string    `json:"userId,omitempty"`
	Mode         string    `json:"mode"` // email or sms
	To           string    `json:"to"`
	Subject      string    `json:"subject"`
	Body         string    `json:"body"`
	Template     string    `json:"template,omitempty"`
	FirstName    string    `json:"firstName,omitempty"`
	TrainingName string    `json:"trainingName,omitempty"`
	HeldDate     string    `json:"heldDate,omitempty"`
}

// outbox holds every accepted message: the service has no way to tell a repetition, so each call adds some.
type outbox struct {
	templates []string

	mu       sync.Mutex
	messages []Message
}

func newOutbox(templates []string) *outbox {
	return &outbox{templates: append([]string{"defaultCertTemp"}, templates...)}
}

func (o *outbox) add(m Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages = append(o.messages, m)
}

// Outbox lists the accepted notifications in the order they came.
func (p *Platform) Outbox() []Message {
	p.outbox.mu.Lock()
	defer p.outbox.mu.Unlock()
	return append([]Message{}, p.outbox.messages...)
}

type notifyRequest struct {
	Mode        string          `json:"mode"`
	Subject     string          `json:"subject"`
	Body        string          `json:"body"`
	Template    string          `json:"emailTemplateType"`
	UserIDs     []string        `json:"recipientUserIds"`
	Emails      []string        `json:"recipientEmails"`
	Phones      []string        `json:"recipientPhones"`
	SearchQuery json.RawMessage `json:"recipientSearchQuery"`
	FirstName   string          `json:"firstName"`
	Training    string          `json:"TraningName"` // spelt so in every template
	HeldDate    string          `json:"heldDate"`
}

// recipientLimit is sunbird_email_max_recipients_limit's default.
const recipientLimit = 100

func (q *notifyRequest) mode() string {
	if strings.EqualFold(q.Mode, "sms") {
		return "sms"
	}
	return "email"
}

// notify accepts an e-mail or an SMS. The operation is named by its mode once that is known, so that faults and
// counts tell the two apart.
func (p *Platform) notify(x *exchange) func() reply {
	var q notifyRequest
	if refused := p.learnerBody(x, &q); refused != nil {
		return answer(*refused)
	}
	x.operation = q.mode()
	if len(q.UserIDs) > 0 {
		x.userID = q.UserIDs[0]
	}
	return func() reply {
		messages, bad := p.addressed(&q)
		if bad != nil {
			return learnerError(x, bad)
		}
		for _, m := range messages {
			p.record(entry{Message: &m})
			p.outbox.add(m)
		}
		return learnerOK(x, map[string]string{"response": "SUCCESS"})
	}
}

// addressed checks the request in the service's order and gives one message for each recipient.
func (p *Platform) addressed(q *notifyRequest) ([]Message, *refusal) {
	switch {
	case strings.TrimSpace(q.Subject) == "":
		return nil, &refusal{400, "EMAIL_SUBJECT_ERROR", "Email Subject is mandatory."}
	case strings.TrimSpace(q.Body) == "":
		return nil, &refusal{400, "EMAIL_BODY_ERROR", "Email Body is mandatory."}
	case len(q.UserIDs)+len(q.Emails)+len(q.Phones) == 0 && empty(q.SearchQuery):
		return nil, mandatory("recipientEmails, recipientUserIds, recipientPhones or recipientSearchQuery")
	}
	users, bad := p.recipients(q)
	if bad != nil {
		return nil, bad
	}
	messages, bad := p.messages(q, users)
	switch {
	case bad != nil:
		return nil, bad
	case len(messages) > recipientLimit:
		return nil, &refusal{400, "EMAIL_RECIPIENTS_EXCEEDS_MAX_LIMIT", fmt.Sprintf(
			"Email notification is not sent as the number of recipients exceeded configured limit (%d).", recipientLimit)}
	case len(messages) == 0:
		return nil, &refusal{
			400, "NO_EMAIL_RECIPIENTS",
			"Email notification is not sent as the number of recipients is zero.",
		}
	case q.Template != "" && !slices.Contains(p.outbox.templates, q.Template):
		return nil, invalidParameter(q.Template, "emailTemplateType")
	}
	return messages, nil
}

func (p *Platform) recipients(q *notifyRequest) ([]*User, *refusal) {
	users := []*User{}
	for _, id := range q.UserIDs {
		u := p.users.get(id)
		if u == nil {
			return nil, invalidParameter(id, "recipientUserIds")
		}
		users = append(users, u)
	}
	if empty(q.SearchQuery) {
		return users, nil
	}
	search := userSearchRequest{}
	if json.Unmarshal(q.SearchQuery, &search) != nil {
		return nil, invalidParameter(string(q.SearchQuery), "recipientSearchQuery")
	}
	filters, _, bad := search.check()
	if bad != nil {
		return nil, invalidParameter(string(q.SearchQuery), "recipientSearchQuery")
	}
	_, found := p.users.search(filters, 0, recipientLimit+1)
	return append(users, found...), nil
}

// messages addresses users by e-mail or phone as the mode says; one without such an address gets none, and a phone
// number that is none is dropped without a word.
func (p *Platform) messages(q *notifyRequest, users []*User) ([]Message, *refusal) {
	mode, out := q.mode(), []Message{}
	add := func(userID, to string) {
		if to != "" {
			out = append(out, Message{
				At: time.Now().UTC(), UserID: userID, Mode: mode, To: to, Subject: q.Subject, Body: q.Body,
				Template: q.Template, FirstName: q.FirstName, TrainingName: q.Training, HeldDate: q.HeldDate,
			})
		}
	}
	for _, u := range users {
		if mode == "sms" {
			add(u.ID, u.Phone)
		} else {
			add(u.ID, u.Email)
		}
	}
	if mode == "sms" {
		for _, phone := range q.Phones {
			if isPhone(phone) {
				add("", phone)
			}
		}
		return out, nil
	}
	for _, email := range q.Emails {
		if !strings.Contains(email, "@") {
			return nil, invalidParameter(email, "recipientEmails")
		}
		add("", email)
	}
	return out, nil
}

func isPhone(s string) bool {
	digits := strings.TrimPrefix(s, "+")
	return len(digits) >= 10 && strings.Trim(digits, "0123456789") == ""
}
