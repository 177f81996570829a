package learner

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

const (
	// groupSize is the most ids one search asks for.
	groupSize = 100
	// freeSearches is how many searches run before lookups begin to wait for
	// company: while the service is quick, nobody waits.
	freeSearches = 4
	// maxWait is the longest that a lookup waits for company. A search takes
	// about as long, so grouping at most doubles a lookup.
	maxWait = 20 * time.Millisecond
	// oneByOne is how many searches of a group run at once when its ids have to
	// be asked one by one.
	oneByOne = 4
)

// ErrClosed is the error of lookups after [Recipients.Close].
var ErrClosed = errors.New("the recipients are closed")

// searcher asks the service for several users.
type searcher interface {
	search(ctx context.Context, ids []issue.LearnerID) ([]user, error)
}

// Recipients looks learners up, those asked for at the same time in one call.
//
// A lookup goes out at once while fewer than four searches are under way.
// Otherwise it joins the group that is forming, which goes out when a search
// ends, when it is full, or after 20 ms. A search belongs to nobody: it goes on
// when those who wait for it have left, until its own timeout.
type Recipients struct {
	searches searcher
	wg       sync.WaitGroup

	mu      sync.Mutex
	forming *group
	running map[*group]context.CancelFunc
	closed  bool
}

// group is the lookups of one call.
type group struct {
	ids     []issue.LearnerID
	lookups map[issue.LearnerID]*lookup
	timer   *time.Timer
	ctx     context.Context // of who came first, without its end: it carries the trace
}

// lookup is one id that one or several callers wait for.
type lookup struct {
	done      chan struct{} // closed once the fields below are set
	recipient issue.Recipient
	err       error
}

func (l *lookup) settle(r issue.Recipient, err error) {
	l.recipient, l.err = r, err
	close(l.done)
}

// NewRecipients gives lookups through a client. Close ends them.
func NewRecipients(c *Client) *Recipients { return newRecipients(c) }

func newRecipients(s searcher) *Recipients {
	return &Recipients{searches: s, running: make(map[*group]context.CancelFunc)}
}

// Recipient looks up a learner (POST /private/user/v1/search). It returns when
// ctx ends, whatever becomes of the call.
//
// The error is an [*issue.Failure], wraps that of ctx, or is [ErrClosed]. A
// learner whom the search does not show is a transient failure with
// [issue.ReasonUnknownUser].
func (r *Recipients) Recipient(ctx context.Context, id issue.LearnerID) (issue.Recipient, error) {
	l, err := r.join(ctx, id)
	if err != nil {
		return issue.Recipient{}, err
	}
	select {
	case <-l.done:
		return l.recipient, l.err
	case <-ctx.Done():
		return issue.Recipient{}, fmt.Errorf("look up learner %s: %w", id, ctx.Err())
	}
}

// join puts a lookup into the forming group and sends that off when it is time.
func (r *Recipients) join(ctx context.Context, id issue.LearnerID) (*lookup, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	g := r.forming
	if g == nil {
		g = &group{lookups: make(map[issue.LearnerID]*lookup), ctx: context.WithoutCancel(ctx)}
		r.forming = g
	}
	l, asked := g.lookups[id]
	if !asked {
		l = &lookup{done: make(chan struct{})}
		g.lookups[id] = l
		g.ids = append(g.ids, id)
	}
	switch {
	case len(r.running) < freeSearches, len(g.ids) >= groupSize:
		r.send(g) //nolint:contextcheck // a search outlives who asked for it first
	case g.timer == nil:
		g.timer = time.AfterFunc(maxWait, func() { //nolint:contextcheck // as above
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.forming == g { // otherwise it has left, or Close has ended it
				r.send(g)
			}
		})
	}
	return l, nil
}

// send starts the call of the forming group; the lock is held.
func (r *Recipients) send(g *group) {
	r.forming = nil
	if g.timer != nil {
		g.timer.Stop()
	}
	ctx, cancel := context.WithCancel(g.ctx)
	r.running[g] = cancel
	r.wg.Go(func() {
		r.ask(ctx, g)
		cancel()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.running, g)
		if r.forming != nil && len(r.running) < freeSearches {
			r.send(r.forming) //nolint:contextcheck // the next group has a context of its own
		}
	})
}

// ask settles every lookup of the group.
func (r *Recipients) ask(ctx context.Context, g *group) {
	users, err := r.search(ctx, g.ids)
	switch {
	case len(g.ids) == 1:
		g.lookups[g.ids[0]].settle(single(g.ids[0], users, err))
		return
	case err != nil && issue.AsFailure(err).Verdict == issue.Permanent:
		// One id may have spoilt it for all.
		r.askEach(ctx, g, g.ids)
		return
	case err != nil:
		for _, l := range g.lookups {
			l.settle(issue.Recipient{}, err)
		}
		return
	}
	found := make(map[issue.LearnerID]user, len(users))
	nameless := false
	for _, u := range users {
		found[u.id()] = u
		nameless = nameless || u.id() == ""
	}
	var left []issue.LearnerID
	for _, id := range g.ids {
		u, ok := found[id]
		switch {
		case ok:
			g.lookups[id].settle(u.recipient(id), nil)
		case nameless:
			left = append(left, id)
		default:
			g.lookups[id].settle(issue.Recipient{}, unknown())
		}
	}
	r.askEach(ctx, g, left)
}

// search asks once. A search ends before its time only because of Close, which
// those who wait must not take for the end of their own contexts.
func (r *Recipients) search(ctx context.Context, ids []issue.LearnerID) ([]user, error) {
	users, err := r.searches.search(ctx, ids)
	if err != nil && ctx.Err() != nil {
		return nil, ErrClosed
	}
	return users, err
}

// askEach asks for ids one by one: the rows of an answer to one id need not say
// whose they are.
func (r *Recipients) askEach(ctx context.Context, g *group, ids []issue.LearnerID) {
	var each errgroup.Group
	each.SetLimit(oneByOne)
	for _, id := range ids {
		each.Go(func() error {
			users, err := r.search(ctx, []issue.LearnerID{id})
			g.lookups[id].settle(single(id, users, err))
			return nil
		})
	}
	_ = each.Wait() // every lookup has its own error
}

// single reads the answer to one id.
func single(id issue.LearnerID, users []user, err error) (issue.Recipient, error) {
	if err != nil {
		return issue.Recipient{}, err
	}
	for _, u := range users {
		if got := u.id(); got == id || got == "" {
			return u.recipient(id), nil
		}
	}
	return issue.Recipient{}, unknown()
}

// Close ends the searches under way, fails the lookups that wait, and returns
// when all has ended.
func (r *Recipients) Close() {
	r.mu.Lock()
	r.closed = true
	for _, cancel := range r.running {
		cancel()
	}
	if g := r.forming; g != nil {
		r.forming = nil
		if g.timer != nil {
			g.timer.Stop()
		}
		for _, l := range g.lookups {
			l.settle(issue.Recipient{}, ErrClosed)
		}
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// search asks the service for users by id; no row for an id means that it
// shows nobody.
func (c *Client) search(ctx context.Context, ids []issue.LearnerID) ([]user, error) {
	body, err := searchBody(ids)
	if err != nil {
		return nil, err
	}
	sent := func() []string {
		texts := make([]string, len(ids))
		for i, id := range ids {
			texts[i] = string(id)
		}
		return texts
	}
	answer, err := c.http.Do(ctx, sunbird.Call{
		Method: http.MethodPost, Path: "/private/user/v1/search", Body: body, Repeatable: true, Sent: sent,
	})
	if err != nil {
		return nil, err
	}
	if answer.Status != http.StatusOK {
		return nil, answer.Failure()
	}
	return readUsers(answer)
}
