package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/ecreds/issuer/internal/program"
)

// dataFolder is the folder of one installation, locked while it is in use: the
// embedded broker has no lock of its own and two would spoil each other's log.
type dataFolder struct {
	path string
	lock *flock.Flock
}

func openDataFolder(path string) (*dataFolder, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, program.Refuse("DATA_DIR", "cannot make the folder: %v", err)
	}
	lock := flock.New(filepath.Join(path, "lock"))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, program.Refuse("DATA_DIR", "cannot lock the folder: %v", err)
	}
	if !locked {
		return nil, program.Refuse("DATA_DIR", "%s is in use by another ecreds-local; stop it or choose another folder", path)
	}
	return &dataFolder{path: path, lock: lock}, nil
}

func (d *dataFolder) file(name string) string { return filepath.Join(d.path, name) }

func (d *dataFolder) close() error { return d.lock.Unlock() }

// startBroker starts a Kafka broker in this process whose topics and committed
// offsets are kept in the folder.
func startBroker(port int, folder *dataFolder) (*kfake.Cluster, error) {
	options := []kfake.Opt{kfake.NumBrokers(1), kfake.DataDir(folder.file("kafka"))}
	if port != 0 {
		options = append(options, kfake.Ports(port))
	}
	broker, err := kfake.NewCluster(options...)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, program.Refuse("KAFKA_PORT", "port %d is taken by another program; choose another", port)
	}
	if err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	return broker, nil
}
