package notify

import (
	"strings"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

const (
	placeholderTraining = "@@TRAINING_NAME@@"
	placeholderDate     = "@@HELD_DATE@@"
)

// members merges the course's notifyTemplate with what the platform's mail
// templates expect; ours win. TraningName is spelt so there.
func members(n issue.Notification) map[string]any {
	m := make(map[string]any, len(n.Template.Notify)+6)
	for name, value := range n.Template.Notify {
		m[name] = value
	}
	// The channel is ours to choose: a mode in the template would turn the
	// e-mail into a second SMS.
	delete(m, "mode")
	m["firstName"] = n.GivenName
	m["TraningName"] = n.Course.Name
	m["heldDate"] = heldDate(n)
	m["recipientUserIds"] = []issue.LearnerID{n.Learner}
	return m
}

func emailMembers(n issue.Notification) map[string]any {
	m := members(n)
	m["body"] = "email body" // mandatory, but the mail shows its template instead
	return m
}

func smsMembers(n issue.Notification, text string) map[string]any {
	m := members(n)
	m["mode"] = "sms"
	// In one pass, so that a course called like a placeholder stays what it is.
	m["body"] = strings.NewReplacer(placeholderTraining, n.Course.Name, placeholderDate, heldDate(n)).Replace(text)
	return m
}

func heldDate(n issue.Notification) string { return n.IssuedOn.Format("02-01-2006") }

// requestBody encodes with members in the order of their names, so that the
// same notification is the same bytes.
func requestBody(members map[string]any) ([]byte, error) {
	return sunbird.JSON(map[string]any{"request": members})
}
