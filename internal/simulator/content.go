package simulator

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
)

// contentRoute finds the operation of a request to the content service; its base may be with or without the
// /learning-service of the older platform.
func (p *Platform) contentRoute(r *http.Request) route {
	path := strings.TrimPrefix(r.URL.Path, "/learning-service")
	if id, found := strings.CutPrefix(path, "/content/v3/read/"); found && r.Method == http.MethodGet {
		return route{"content_read", func(x *exchange) func() reply { return p.contentRead(x, id) }}
	}
	if path == "/health" || path == "/service/health" {
		return route{"health", func(*exchange) func() reply {
			return answer(contentReply(200, "OK", "", "", map[string]any{"healthy": true}))
		}}
	}
	return route{"unknown", func(x *exchange) func() reply {
		return answer(contentReply(404, "RESOURCE_NOT_FOUND", "ERR_INVALID_PATH", "Invalid API path: "+x.r.URL.Path, struct{}{}))
	}}
}

// contentStore keeps each course as the members its read shows.
type contentStore struct {
	mu      sync.RWMutex
	courses map[string]map[string]json.RawMessage
}

func newContentStore() *contentStore {
	return &contentStore{courses: map[string]map[string]json.RawMessage{}}
}

func (s *contentStore) load(courses []Course) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range courses {
		members, err := c.members()
		if err != nil {
			return err
		}
		s.courses[c.ID] = members
	}
	return nil
}

func (c *Course) members() (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{
		"identifier": encode(c.ID), "name": encode(c.Name), "status": encode("Live"), "contentType": encode("Course"),
		"mimeType": encode("application/vnd.ekstep.content-collection"), "objectType": encode("Content"),
		"versionKey": encode("1570000000000"), "channel": encode("0123"), "languageCode": encode("en"),
	}
	templates := c.RawCertTemplate
	if templates == nil && len(c.Templates) > 0 {
		var err error
		if templates, err = json.Marshal(c.Templates); err != nil {
			return nil, err
		}
	}
	if !empty(templates) {
		members["certTemplate"] = templates
	}
	return members, nil
}

func (p *Platform) contentRead(x *exchange, id string) func() reply {
	return func() reply {
		p.content.mu.RLock()
		members := p.content.courses[id]
		p.content.mu.RUnlock()
		if members == nil {
			return contentReply(404, "RESOURCE_NOT_FOUND", "ERR_CONTENT_NOT_FOUND", "Content not found with id: "+id, struct{}{})
		}
		if fields := x.r.URL.Query().Get("fields"); fields != "" {
			members = onlyFields(members, fields)
		}
		return contentReply(200, "OK", "", "", map[string]any{"content": members})
	}
}

// onlyFields keeps the members asked for, and the two that are always there.
func onlyFields(members map[string]json.RawMessage, fields string) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, name := range append(strings.Split(fields, ","), "identifier", "languageCode") {
		if value, has := members[strings.TrimSpace(name)]; has {
			out[strings.TrimSpace(name)] = value
		}
	}
	return out
}

func contentReply(status int, responseCode, code, text string, result any) reply {
	messageID := newID()
	e := sunbirdEnvelope{
		ID: "ekstep.content.find", Ver: "3.0", TS: time.Now().UTC().Format("2006-01-02T15:04:05Z") + "+05:30",
		Params: envelopeParams{ResMsgID: &messageID, Status: "successful"}, ResponseCode: responseCode, Result: result,
	}
	if code != "" {
		e.Params.Status, e.Params.Err, e.Params.ErrMsg = "failed", &code, &text
	}
	return jsonReply(status, e)
}
