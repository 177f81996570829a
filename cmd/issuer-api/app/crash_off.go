//go:build !crash

package app

import "github.com/ecreds/issuer/internal/issue"

// The crash tests build this program with the tag crash, and then these make it
// die at points of their choice; here they do nothing.

func mortalDispatcher(c issue.DispatcherConfig) issue.DispatcherConfig { return c }

func mortalFanOut(store issue.FanOutStore) issue.FanOutStore { return store }

func mortalJobs(store issue.JobStore) issue.JobStore { return store }
