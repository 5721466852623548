// kubectl as a process that stays: the argument is the path of a unix socket, each connection carries one call. It ends when its standard
// input does, which is when the program that started it has ended.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	_ "unsafe" // for go:linkname

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

// What kubectl's own handler of fatal errors writes and exits with.
type fatal struct {
	message string
	code    int
}

// cobra keeps what completes each flag of each command for ever, and by that all that a call ever held.
//
//go:linkname flagCompletionFunctions github.com/spf13/cobra.flagCompletionFunctions
var flagCompletionFunctions map[*pflag.Flag]cobra.CompletionFunc

//go:linkname flagCompletionMutex github.com/spf13/cobra.flagCompletionMutex
var flagCompletionMutex *sync.RWMutex

// Held by a call that reads its standard input: kubectl takes `os.Stdin` for `-f -`, whatever its streams are.
var stdin sync.Mutex

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: kubectl-server SOCKET")
	}
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	// The API server takes the manager of fields from it.
	os.Args[0] = "kubectl"
	parent := os.Stdin
	if os.Stdin, err = os.Open(os.DevNull); err != nil {
		log.Fatal(err)
	}
	// Else each call would look through every folder of it for plugins, to name them in its help.
	os.Unsetenv("PATH")
	util.BehaviorOnFatal(func(message string, code int) { panic(fatal{message, code}) })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(connection)
		}
	}()
	fmt.Println("ready")
	// Nobody reads it any more.
	os.Stdout = os.Stderr
	io.Copy(io.Discard, parent)
	listener.Close()
}

func serve(connection net.Conn) {
	defer connection.Close()
	var arguments []string
	request, err := receive(connection)
	if err == nil {
		err = json.Unmarshal(request, &arguments)
	}
	var input []byte
	if err == nil {
		input, err = receive(connection)
	}
	if err != nil {
		log.Print("request: ", err)
		return
	}
	own := arguments
	if end := slices.Index(arguments, "--"); end >= 0 {
		own = arguments[:end]
	}
	if slices.ContainsFunc(own, isStandardInput) {
		restore, err := standardInput(input)
		if err != nil {
			log.Print("standard input: ", err)
			return
		}
		defer restore()
	}
	out, errOut, code := run(arguments, input)
	answer := binary.BigEndian.AppendUint32(nil, uint32(code))
	for _, part := range [][]byte{out.Bytes(), errOut.Bytes()} {
		answer = append(binary.BigEndian.AppendUint32(answer, uint32(len(part))), part...)
	}
	if _, err := connection.Write(answer); err != nil {
		log.Print("answer: ", err)
	}
}

func isStandardInput(argument string) bool {
	return argument == "-" || argument == "-f-" || argument == "--filename=-"
}

func receive(connection net.Conn) ([]byte, error) {
	var length uint32
	if err := binary.Read(connection, binary.BigEndian, &length); err != nil {
		return nil, err
	}
	part := make([]byte, length)
	_, err := io.ReadFull(connection, part)
	return part, err
}

// Makes `input` the standard input of the process until the function it returns is called.
func standardInput(input []byte) (func(), error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	stdin.Lock()
	usual := os.Stdin
	os.Stdin = reader
	go func() {
		writer.Write(input)
		writer.Close()
	}()
	return func() {
		os.Stdin = usual
		stdin.Unlock()
		reader.Close()
	}, nil
}

// One call, as kubectl's main does it.
func run(arguments []string, input []byte) (out, errOut bytes.Buffer, code int) {
	streams := genericiooptions.IOStreams{In: bytes.NewReader(input), Out: &out, ErrOut: &errOut}
	defer func() {
		flagCompletionMutex.Lock()
		clear(flagCompletionFunctions)
		flagCompletionMutex.Unlock()
		switch ended := recover().(type) {
		case nil:
		case fatal:
			if code = ended.code; ended.message != "" {
				fmt.Fprintln(&errOut, strings.TrimSuffix(ended.message, "\n"))
			}
		default:
			panic(ended)
		}
	}()
	warnings := rest.NewWarningWriter(&errOut, rest.WarningWriterOptions{Deduplicate: true})
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50)
	flags.WithWarningPrinter(streams).WithWrapConfigFn(func(config *rest.Config) *rest.Config {
		// With `--warnings-as-errors`, which counts those of a handler of its own, a call would not fail.
		config.WarningHandler = warnings
		// With HTTP/2 all calls would share a connection, and wait together where it leads nowhere.
		config.NextProtos = []string{"http/1.1"}
		return config
	})
	command := cmd.NewKubectlCommand(cmd.KubectlOptions{
		Arguments: append([]string{"kubectl"}, arguments...), ConfigFlags: flags, IOStreams: streams,
	})
	command.SetArgs(arguments)
	command.SetIn(streams.In)
	command.SetOut(streams.Out)
	command.SetErr(streams.ErrOut)
	defer closeConnections(flags)
	util.CheckErr(cli.RunNoErrOutput(command))
	return
}

// A call does not find the connections of an earlier one, which may lead to an API server that is gone.
func closeConnections(flags *genericclioptions.ConfigFlags) {
	config, err := flags.ToRESTConfig()
	if err != nil {
		return
	}
	if transport, err := rest.TransportFor(config); err == nil {
		utilnet.CloseIdleConnectionsFor(transport)
	}
}
