package simulator

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
)

// userStore holds users and organisations.
type userStore struct {
	mu    sync.RWMutex
	users map[string]*User
	order []string // ids in the order they came, which is the order of a search without an id
	orgs  map[string]*Organisation
}

func newUserStore() *userStore {
	return &userStore{users: map[string]*User{}, orgs: map[string]*Organisation{}}
}

func (s *userStore) load(orgs []Organisation, users []User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range users {
		u := users[i]
		if s.users[u.ID] == nil {
			s.order = append(s.order, u.ID)
		}
		s.users[u.ID] = &u
		if s.orgs[u.RootOrgID] == nil && u.RootOrgID != "" {
			s.orgs[u.RootOrgID] = &Organisation{ID: u.RootOrgID, Name: "Organisation " + u.RootOrgID}
		}
	}
	for i := range orgs {
		o := orgs[i]
		s.orgs[o.ID] = &o
	}
}

// get finds a user; users are replaced and never changed, so what it gives may be kept.
func (s *userStore) get(id string) *User {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.users[id]
}

func (s *userStore) org(id string) *Organisation {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.orgs[id]
}

var userNotFound = &refusal{404, "USER_NOT_FOUND", "user not found."}

// defaultSearchLimit is how many hits the service returns where a search names no limit.
const defaultSearchLimit = 250

type userSearchRequest struct {
	Filters json.RawMessage `json:"filters"`
	Fields  json.RawMessage `json:"fields"`
	Limit   *int            `json:"limit"`
	Offset  int             `json:"offset"`
}

func (p *Platform) userSearch(x *exchange) func() reply {
	var q userSearchRequest
	if refused := p.learnerBody(x, &q); refused != nil {
		return answer(*refused)
	}
	filters, fields, bad := q.check()
	if bad != nil {
		return answer(learnerError(x, bad))
	}
	for _, name := range userIDFields {
		if ids := filters[name]; len(ids) == 1 {
			x.userID = ids[0]
		}
	}
	limit := defaultSearchLimit
	if q.Limit != nil {
		limit = max(0, *q.Limit)
	}
	return func() reply {
		count, found := p.users.search(filters, q.Offset, limit)
		content := make([]map[string]any, len(found))
		for i, u := range found {
			content[i] = p.users.document(u, fields)
		}
		return learnerOK(x, map[string]any{"response": userHits{count, content}})
	}
}

type userHits struct {
	Count   int              `json:"count"`
	Content []map[string]any `json:"content"`
}

var userIDFields = []string{"identifier", "id", "userId"}

func (q *userSearchRequest) check() (filters map[string][]string, fields []string, bad *refusal) {
	if empty(q.Filters) {
		return nil, nil, mandatory("filters")
	}
	if filters, bad = checkFilters(q.Filters); bad != nil {
		return nil, nil, bad
	}
	if empty(q.Fields) {
		return filters, nil, nil
	}
	if q.Fields[0] != '[' {
		return nil, nil, dataType("fields", "List")
	}
	if json.Unmarshal(q.Fields, &fields) != nil {
		return nil, nil, dataType("fields", "List of String")
	}
	return filters, fields, nil
}

func checkFilters(raw json.RawMessage) (map[string][]string, *refusal) {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return nil, dataType("filters", "Map")
	}
	filters := make(map[string][]string, len(members))
	for name, value := range members {
		if empty(value) {
			return nil, invalidParameter("null", name)
		}
		filters[name] = filterValues(value)
	}
	return filters, nil
}

// filterValues reads one value or a list of them, as texts; anything else matches nothing.
func filterValues(raw json.RawMessage) []string {
	list := []any{}
	if raw[0] == '[' {
		_ = json.Unmarshal(raw, &list)
	} else {
		var one any
		_ = json.Unmarshal(raw, &one)
		list = append(list, one)
	}
	out := []string{}
	for _, v := range list {
		if text, isText := v.(string); isText {
			out = append(out, text)
		} else {
			out = append(out, string(encode(v)))
		}
	}
	return out
}

// search gives the number of users that match every filter and one page of them.
func (s *userStore) search(filters map[string][]string, offset, limit int) (count int, page []*User) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, id := range s.candidates(filters) {
		u := s.users[id]
		if u == nil || u.Unindexed || !u.matches(filters) {
			continue
		}
		if count >= offset && len(page) < limit {
			page = append(page, u)
		}
		count++
	}
	return count, page
}

// candidates are the ids a filter names, or everybody.
func (s *userStore) candidates(filters map[string][]string) []string {
	for _, name := range userIDFields {
		if ids, given := filters[name]; given {
			ids = slices.Clone(ids)
			slices.Sort(ids)
			return slices.Compact(ids)
		}
	}
	return s.order
}

func (u *User) matches(filters map[string][]string) bool {
	for name, values := range filters {
		if !slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, u.text(name)) }) {
			return false
		}
	}
	return true
}

// text is a member of the user's document, "" where it has none.
func (u *User) text(name string) string {
	switch name {
	case "id", "identifier", "userId":
		return u.ID
	case "firstName":
		return u.FirstName
	case "lastName":
		return u.LastName
	case "userName":
		return u.UserName
	case "rootOrgId":
		return u.RootOrgID
	case "maskedPhone":
		return u.maskedPhone()
	case "maskedEmail":
		return u.maskedEmail()
	case "status":
		return "1"
	}
	return ""
}

var userMembers = []string{
	"id", "identifier", "userId", "firstName", "lastName", "userName", "rootOrgId", "rootOrgName", "maskedPhone",
	"maskedEmail", "status", "roles",
}

// document is the user as search shows it: only the members asked for, and of these only those the user has.
func (s *userStore) document(u *User, fields []string) map[string]any {
	if fields == nil {
		fields = userMembers
	}
	out := make(map[string]any, len(fields))
	for _, name := range fields {
		switch name {
		case "status":
			out[name] = 1
		case "roles":
			out[name] = u.roles()
		case "rootOrgName":
			if org := s.org(u.RootOrgID); org != nil {
				out[name] = org.Name
			}
		default:
			if text := u.text(name); text != "" {
				out[name] = text
			}
		}
	}
	return out
}

func (u *User) roles() []string {
	if len(u.Roles) == 0 {
		return []string{"PUBLIC"}
	}
	return u.Roles
}

// userRead is the user's whole document, with the roles in each place the releases have them.
func (p *Platform) userRead(x *exchange, id string) func() reply {
	x.userID = id
	return func() reply {
		u := p.users.get(id)
		if u == nil {
			return learnerError(x, userNotFound)
		}
		if u.Blocked {
			return learnerError(x, &refusal{400, "USER_ACCOUNT_BLOCKED", "User account has been blocked ."})
		}
		document := p.users.document(u, nil)
		document["organisations"] = []any{map[string]any{"organisationId": u.RootOrgID, "roles": u.roles()}}
		return learnerOK(x, map[string]any{"response": document})
	}
}

func (p *Platform) orgRead(x *exchange) func() reply {
	var q struct {
		OrganisationID string `json:"organisationId"`
	}
	if refused := p.learnerBody(x, &q); refused != nil {
		return answer(*refused)
	}
	if q.OrganisationID == "" {
		return answer(learnerError(x, mandatory("organisationId")))
	}
	return func() reply {
		org := p.users.org(q.OrganisationID)
		if org == nil {
			return learnerError(x, &refusal{404, "RESOURCE_NOT_FOUND", "Requested organisation resource not found"})
		}
		return learnerOK(x, map[string]any{"response": org.document()})
	}
}

func (o *Organisation) document() map[string]any {
	keys := map[string][]string{}
	if len(o.SignKeys) > 0 {
		keys["signKeys"] = o.SignKeys
	}
	if len(o.EncKeys) > 0 {
		keys["encKeys"] = o.EncKeys
	}
	return map[string]any{
		"id": o.ID, "identifier": o.ID, "orgName": o.Name, "isRootOrg": true, "rootOrgId": o.ID, "status": 1, "keys": keys,
	}
}
