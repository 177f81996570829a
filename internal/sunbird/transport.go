package sunbird

import (
	"net"
	"net/http"
	"time"
)

const (
	// dialTimeout bounds connecting: inside a cluster a connection takes
	// milliseconds, and a service that is away should be known as such soon.
	dialTimeout = 5 * time.Second
	// idleTimeout is below the 5 s after which Node's servers close an idle
	// connection (Play: 75 s). A POST written on a connection that is being
	// closed gets no reply, which would look like an outage. Under load
	// connections are never idle for that long; without load a new one is cheap.
	idleTimeout = 4 * time.Second
	// maxHeaderBytes caps the header of an answer.
	maxHeaderBytes = 64 << 10
)

// NewHTTPClient gives the client that all edges of a process share. Concurrency
// is the number of calls that may be under way to one service.
func NewHTTPClient(concurrency int) *http.Client {
	return &http.Client{Transport: NewTransport(concurrency), CheckRedirect: stay}
}

// NewTransport gives a transport that keeps as many connections to a service as
// there may be calls under way: the default keeps two, which with 400 calls at
// once cost half as much CPU again and a port for nearly every call.
//
// It asks no proxy, since the services stand inside the cluster, and speaks
// HTTP/1.1, since a single HTTP/2 connection would be one queue for all calls.
func NewTransport(concurrency int) *http.Transport {
	concurrency = max(concurrency, 1)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		Protocols:              protocols,
		TLSHandshakeTimeout:    dialTimeout,
		MaxIdleConns:           0, // no limit over all services: each has its own
		MaxIdleConnsPerHost:    concurrency,
		MaxConnsPerHost:        concurrency,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

// stay follows no redirect: a redirected POST becomes a GET, and the page it
// leads to (a login, often) would be taken for an answer.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
