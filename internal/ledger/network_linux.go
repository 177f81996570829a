package ledger

import (
	"fmt"
	"path/filepath"
	"syscall"
)

// networks are the file systems whose locks and memory maps do not reach from
// one machine to the other, by the numbers of statfs(2).
var networks = map[int64]string{
	0x6969: "NFS", 0xFF534D42: "CIFS", 0x517B: "SMB", 0xFE534D42: "SMB", 0x65735546: "FUSE", 0x01021997: "9P",
	0x00C36400: "Ceph", 0x5346414F: "AFS",
}

// refuseNetwork refuses a file on a network file system: two programs that
// share it there would spoil it.
func refuseNetwork(path string) error {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &stat); err != nil {
		return nil //nolint:nilerr // opening the file says better what is wrong
	}
	if name, ok := networks[int64(uint32(stat.Type))]; ok {
		return fmt.Errorf("the ledger %s is on a network file system (%s), where SQLite cannot lock it: "+
			"use a local disk, or PostgreSQL", path, name)
	}
	return nil
}
