//go:build !realparts

package ledger

// kinds are the stores that can be had: without the build tag realparts there is
// no PostgreSQL.
func kinds() map[string]kind { return map[string]kind{"SQLite": sqliteStored{}} }
