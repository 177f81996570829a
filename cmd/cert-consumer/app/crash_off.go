//go:build !crash

package app

import "github.com/ecreds/issuer/internal/issue"

// The crash tests build this program with the tag crash, and then these make it
// die at points of their choice; here they do nothing.

func mortalWorker(c issue.WorkerConfig) issue.WorkerConfig { return c }

func mortalBury(bury issue.Bury) issue.Bury { return bury }
