// Command cni-client drives network lists through libcni, the library that container runtimes use, so that
// the tests see what a runtime sees: caching, prevResult, chaining, capability arguments and CNI_* included.
//
//	cni-client add|del|check|gc|status -conf LIST [-bin DIRS] [-cache DIR]
//	           [-id ID -netns PATH -ifname NAME] [-args K=V;K=V] [-capabilities JSON] [-valid JSON]
//
// It prints the final result as JSON on add, nothing on success of the other verbs, and on failure a CNI
// error object, with exit code 1. A usage error exits with 2.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// options are the command line after parsing.
type options struct {
	conf, bin, cache, id, netns, ifname, args, capabilities, valid string
}

func main() {
	if len(os.Args) < 2 {
		usage(errors.New("no verb"))
	}
	verb := os.Args[1]
	var o options
	flags := flag.NewFlagSet(verb, flag.ExitOnError)
	flags.StringVar(&o.conf, "conf", "", "file with the network list")
	flags.StringVar(&o.bin, "bin", "", "folders with plugins, joined by ':'")
	flags.StringVar(&o.cache, "cache", "", "folder of libcni's cache")
	flags.StringVar(&o.id, "id", "", "container id")
	flags.StringVar(&o.netns, "netns", "", "path of the container's network namespace")
	flags.StringVar(&o.ifname, "ifname", "eth0", "interface to make in the container")
	flags.StringVar(&o.args, "args", "", "CNI_ARGS: K=V;K=V")
	flags.StringVar(&o.capabilities, "capabilities", "", "capability arguments, a JSON object")
	flags.StringVar(&o.valid, "valid", "", "gc: attachments that are still valid, a JSON array")
	_ = flags.Parse(os.Args[2:])

	if err := run(verb, o); err != nil {
		fail(err)
	}
}

// run carries out one verb of the specification on a whole network list.
func run(verb string, o options) error {
	list, err := libcni.NetworkConfFromFile(o.conf)
	if err != nil {
		return err
	}
	client := libcni.NewCNIConfigWithCacheDir(filepath.SplitList(o.bin), o.cache, nil)
	rt, err := o.runtimeConf()
	if err != nil {
		usage(err)
	}
	ctx := context.Background()
	switch verb {
	case "add":
		result, err := client.AddNetworkList(ctx, list, rt)
		if err != nil {
			return err
		}
		// A runtime asks for the result in the list's version; the library may hold a newer one.
		result, err = result.GetAsVersion(list.CNIVersion)
		if err != nil {
			return err
		}
		return result.Print()
	case "del":
		return client.DelNetworkList(ctx, list, rt)
	case "check":
		return client.CheckNetworkList(ctx, list, rt)
	case "gc":
		if o.valid == "" {
			// Nothing said about attachments is not the same as an empty list of them.
			return client.GCNetworkList(ctx, list, nil)
		}
		valid := []types.GCAttachment{}
		if err := json.Unmarshal([]byte(o.valid), &valid); err != nil {
			usage(fmt.Errorf("-valid: %w", err))
		}
		return client.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: valid})
	case "status":
		return client.GetStatusNetworkList(ctx, list)
	default:
		usage(fmt.Errorf("unknown verb %q", verb))
		return nil
	}
}

// runtimeConf turns the command line into what libcni wants to know of one attachment.
func (o options) runtimeConf() (*libcni.RuntimeConf, error) {
	rt := &libcni.RuntimeConf{ContainerID: o.id, NetNS: o.netns, IfName: o.ifname}
	for _, pair := range strings.Split(o.args, ";") {
		if pair == "" {
			continue
		}
		key, value, found := strings.Cut(pair, "=")
		if !found {
			return nil, fmt.Errorf("-args: %q is not K=V", pair)
		}
		rt.Args = append(rt.Args, [2]string{key, value})
	}
	if o.capabilities != "" {
		if err := json.Unmarshal([]byte(o.capabilities), &rt.CapabilityArgs); err != nil {
			return nil, fmt.Errorf("-capabilities: %w", err)
		}
	}
	return rt, nil
}

// fail prints the plugin's error as the plugin wrote it; anything else gets CNI's generic code.
func fail(err error) {
	var cniError *types.Error
	if !errors.As(err, &cniError) {
		cniError = &types.Error{Code: types.ErrInternal, Msg: err.Error()}
	}
	_ = cniError.Print()
	os.Exit(1)
}

func usage(err error) {
	fmt.Fprintf(os.Stderr, "cni-client: %v\nsee the comment at the top of its source\n", err)
	os.Exit(2)
}
