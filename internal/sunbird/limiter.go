package sunbird

import (
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
)

// The limiter raises its limit while answers stay as quick as they were, and
// lowers it when they become slower or when more calls at once get less done.
// Its settings were searched for with simulated services and measured with real
// ones (docs/adr/0008, BenchmarkCollapse, BenchmarkLimitRises).
const (
	// initialLimit is where it starts, and starts again after an outage: more
	// would be learnt too late by a service that bears less.
	initialLimit = 64
	// leastLimit is never gone below. A machine short of processors makes every
	// service look slow; with less, a healthy service was then held at a fraction
	// of what it bears. A service that bears fewer needs a lower CONCURRENCY.
	leastLimit = 32
	// limitFactor is how far the limit may be above the calls under way: what has
	// not been tried is not known.
	limitFactor = 10
	// The limit changes by 1 to 3 a window, so that windows must be short for it
	// to reach 1,500 within seconds: 5 ms where calls are many, and 20 calls
	// where they are few.
	window        = 5 * time.Millisecond
	windowSamples = 20
	// windowQuantile is the latency that is compared. Around the middle it is
	// steadier than near the slow end, where one stall of this machine shows.
	windowQuantile = 0.4
	// baselineWindows is how long the latency is remembered that counts as
	// normal. A service that has become slower for good is soon believed; that one
	// is driven slowly into collapse is prevented by the correlation.
	baselineWindows = 100
	// correlationWindows is how many windows tell whether more calls at once get
	// less done: the least that the library uses. With its default of 50 the limit
	// swings between half and all of what a service bears.
	correlationWindows = 10
)

func newLimiter(concurrency int, changed func(limit int)) adaptivelimiter.AdaptiveLimiter[any] {
	most := uint(max(concurrency, 1))
	return adaptivelimiter.NewBuilder[any]().
		WithLimits(min(leastLimit, most), most, min(initialLimit, most)).
		WithMaxLimitFactor(limitFactor).
		WithRecentWindow(0, window, windowSamples).
		WithRecentQuantile(windowQuantile).
		WithBaselineWindow(baselineWindows).
		WithCorrelationWindow(correlationWindows).
		OnLimitChanged(func(e adaptivelimiter.LimitChangedEvent) { changed(int(e.NewLimit)) }).
		Build()
}
