// The real etcd: the API server serves lists from its cache, and streams them, with one of 3.5.13 and later only, which Debian 12 has not.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
