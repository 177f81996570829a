package issue

import "sync"

// suspects are events at whose processes' deaths they were in flight, so often
// that one more convicts them. One of them at a time is worked here, so that the
// death of this process tells which it was. The others must not even be claimed
// meanwhile: they would share its fate. So one that shows itself a suspect by
// its claim gives that up at once, and comes again for the place.
type suspects struct {
	mu     sync.Mutex
	known  map[IssuanceID]bool
	worked bool
}

func newSuspects() *suspects { return &suspects{known: map[IssuanceID]bool{}} }

// enter takes the place for an event that is a suspect, as far as is known;
// false = another has it.
func (s *suspects) enter(id IssuanceID) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.known[id]:
		return func() {}, true
	case s.worked:
		return nil, false
	default:
		s.worked = true
		return s.leave, true
	}
}

func (s *suspects) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worked = false
}

// learn takes note of a suspect, and says whether that is news.
func (s *suspects) learn(id IssuanceID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := !s.known[id]
	s.known[id] = true
	return news
}

// forget is for an event that has come to rest.
func (s *suspects) forget(id IssuanceID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, id)
}
