//go:build crash

package app

import (
	"github.com/ecreds/issuer/internal/crash"
	"github.com/ecreds/issuer/internal/issue"
)

func mortalDispatcher(c issue.DispatcherConfig) issue.DispatcherConfig { return crash.Dispatcher(c) }

func mortalFanOut(store issue.FanOutStore) issue.FanOutStore { return crash.FanOut(store) }

func mortalJobs(store issue.JobStore) issue.JobStore { return crash.Jobs(store) }
