// flannel's VXLAN backend, to measure it beside Netkeel: its own packages, in the order in which its daemon calls them. The
// daemon itself does not build everywhere, since it links every cloud's SDK. It runs until it is told to end.
package main

import (
	"context"
	"errors"
	"flag"
	"os/signal"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	log "k8s.io/klog/v2"
)

var (
	kubeconfig = flag.String("kubeconfig-file", "", "kubeconfig of the node's agent")
	netConf    = flag.String("net-config-path", "", "flannel's net-conf.json")
	publicIP   = flag.String("public-ip", "", "address of this node")
	publicIPv6 = flag.String("public-ipv6", "", "its address of IPv6, where pods have both")
	subnetFile = flag.String("subnet-file", "/run/flannel/subnet.env", "where the node's subnet and MTU are written")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		log.Exit(err)
	}
}

func run(ctx context.Context) error {
	manager, err := kube.NewSubnetManager(ctx, "", *kubeconfig, "flannel.alpha.coreos.com", *netConf, true)
	if err != nil {
		return err
	}
	config, err := manager.GetNetworkConfig(ctx)
	if err != nil {
		return err
	}
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return err
	}
	device, err := ipmatch.LookupExtIface(*publicIP, "", "", stack, ipmatch.PublicIPOpts{PublicIP: *publicIP, PublicIPv6: *publicIPv6})
	if err != nil {
		return err
	}
	kind, err := backend.NewManager(ctx, manager, device).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	var tasks sync.WaitGroup
	network, err := kind.RegisterNetwork(ctx, &tasks, config)
	if err != nil {
		return err
	}
	lease := network.Lease()
	if err := manager.HandleSubnetFile(*subnetFile, config, false, lease.Subnet, lease.IPv6Subnet, network.MTU()); err != nil {
		return err
	}
	go manager.CompleteLease(ctx, lease, &tasks)
	network.Run(ctx)
	tasks.Wait()
	return nil
}
