//go:build crash

package app

import (
	"github.com/ecreds/issuer/internal/crash"
	"github.com/ecreds/issuer/internal/issue"
)

func mortalWorker(c issue.WorkerConfig) issue.WorkerConfig { return crash.Worker(c) }

func mortalBury(bury issue.Bury) issue.Bury { return crash.Bury(bury) }
