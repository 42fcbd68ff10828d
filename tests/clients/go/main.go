// What users of the Go API client do, against the server at KEYWARD_ADDR with the token KEYWARD_TOKEN.
//
// The client is OpenBao's own; the first expectation that fails ends the run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/openbao/openbao/api/v2"
)

var ctx = context.Background()

func main() {
	flows := []struct {
		name string
		run  func(*api.Client)
	}{{"status", status}, {"kv version 2", kv2}, {"kv version 1", kv1}, {"tokens", tokens}, {"wrapping", wrapping}}
	for _, flow := range flows {
		flow.run(client(os.Getenv("KEYWARD_TOKEN")))
		fmt.Printf("%s: fine\n", flow.name)
	}
	fmt.Printf("%d passed, 0 failed\n", len(flows))
}

func client(token string) *api.Client {
	config := api.DefaultConfig()
	config.Address = os.Getenv("KEYWARD_ADDR")
	config.MaxRetries = 0
	made, err := api.NewClient(config)
	must(err)
	made.SetToken(token)
	return made
}

func status(root *api.Client) {
	health, err := root.Sys().Health()
	must(err)
	equal(health.Initialized, true)
	seal, err := root.Sys().SealStatus()
	must(err)
	equal(seal.Sealed, false)
	leader, err := root.Sys().Leader()
	must(err)
	_ = leader
}

func kv2(root *api.Client) {
	kv := root.KVv2("secret")
	made, err := kv.Put(ctx, "go/app", map[string]any{"user": "ada", "pass": "p1"}, api.WithCheckAndSet(0))
	must(err)
	equal(made.VersionMetadata.Version, 1)
	_, err = kv.Put(ctx, "go/app", map[string]any{}, api.WithCheckAndSet(0))
	refused(err, 400)
	_, err = kv.Put(ctx, "go/app", map[string]any{"user": "ada", "pass": "p2"})
	must(err)
	read, err := kv.Get(ctx, "go/app")
	must(err)
	equal(read.Data, map[string]any{"user": "ada", "pass": "p2"})
	read, err = kv.GetVersion(ctx, "go/app", 1)
	must(err)
	equal(read.Data["pass"], any("p1"))
	patched, err := kv.Patch(ctx, "go/app", map[string]any{"note": "new"})
	must(err)
	equal(patched.VersionMetadata.Version, 3)
	must(kv.Delete(ctx, "go/app"))
	gone, err := kv.Get(ctx, "go/app")
	must(err)
	equal(gone.Data == nil, true)
	must(kv.Undelete(ctx, "go/app", []int{3}))
	must(kv.DeleteVersions(ctx, "go/app", []int{2}))
	must(kv.Destroy(ctx, "go/app", []int{1}))
	versions, err := kv.GetVersionsAsList(ctx, "go/app")
	must(err)
	equal(len(versions), 3)
	equal(versions[0].Destroyed, true)
	_, err = kv.Rollback(ctx, "go/app", 3)
	must(err)
	must(kv.PutMetadata(ctx, "go/app", api.KVMetadataPutInput{MaxVersions: 7, CustomMetadata: map[string]any{"owner": "ada"}}))
	metadata, err := kv.GetMetadata(ctx, "go/app")
	must(err)
	equal(metadata.MaxVersions, 7)
	equal(metadata.CurrentVersion, 4)
	list, err := root.Logical().List("secret/metadata/go")
	must(err)
	equal(list.Data["keys"], any([]any{"app"}))
	must(kv.DeleteMetadata(ctx, "go/app"))
	_, err = kv.Get(ctx, "go/app")
	equal(errors.Is(err, api.ErrSecretNotFound), true)
}

func kv1(root *api.Client) {
	must(root.Sys().Mount("go-old", &api.MountInput{Type: "kv", Description: "old ways"}))
	kv := root.KVv1("go-old")
	must(kv.Put(ctx, "a", map[string]any{"n": 7}))
	read, err := kv.Get(ctx, "a")
	must(err)
	equal(read.Data["n"], any(json.Number("7")))
	must(kv.Delete(ctx, "a"))
	mounts, err := root.Sys().ListMounts()
	must(err)
	equal(mounts["go-old/"].Description, "old ways")
	must(root.Sys().TuneMount("go-old", api.MountConfigInput{DefaultLeaseTTL: "1h"}))
	must(root.Sys().Unmount("go-old"))
}

func tokens(root *api.Client) {
	must(root.Sys().PutPolicy("go-mine", `path "secret/data/go/mine" { capabilities = ["create", "read"] }`))
	text, err := root.Sys().GetPolicy("go-mine")
	must(err)
	equal(text != "", true)
	made, err := root.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"go-mine"}, TTL: "1h"})
	must(err)
	limited := client(made.Auth.ClientToken)
	self, err := limited.Auth().Token().LookupSelf()
	must(err)
	ttl, err := self.TokenTTL()
	must(err)
	equal(ttl.Minutes() > 59, true)
	_, err = limited.KVv2("secret").Put(ctx, "go/mine", map[string]any{"a": "b"})
	must(err)
	_, err = limited.KVv2("secret").Get(ctx, "go/other")
	refused(err, 403)
	capabilities, err := limited.Sys().CapabilitiesSelf("secret/data/go/mine")
	must(err)
	equal(capabilities, []string{"create", "read"})
	_, err = limited.Auth().Token().RenewSelf(600)
	must(err)
	must(root.Auth().Token().RevokeAccessor(made.Auth.Accessor))
	_, err = limited.Auth().Token().LookupSelf()
	refused(err, 403)
	must(root.Sys().DeletePolicy("go-mine"))
}

func wrapping(root *api.Client) {
	_, err := root.KVv2("secret").Put(ctx, "go/wrapped", map[string]any{"pin": "4711"})
	must(err)
	asking, err := root.Clone()
	must(err)
	asking.SetToken(root.Token())
	asking.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	wrapped, err := asking.Logical().Read("secret/data/go/wrapped")
	must(err)
	equal(wrapped.WrapInfo.TTL, 300)
	opened, err := root.Logical().Unwrap(wrapped.WrapInfo.Token)
	must(err)
	equal(opened.Data["data"], any(map[string]any{"pin": "4711"}))
	_, err = root.Logical().Unwrap(wrapped.WrapInfo.Token)
	refused(err, 400)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func refused(err error, code int) {
	var answer *api.ResponseError
	if !errors.As(err, &answer) || answer.StatusCode != code {
		panic(fmt.Sprintf("%d was due, %v came", code, err))
	}
}

func equal[T any](got, want T) {
	if !reflect.DeepEqual(got, want) {
		panic(fmt.Sprintf("%v was due, %v came", want, got))
	}
}
