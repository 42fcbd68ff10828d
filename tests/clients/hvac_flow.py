"""What users of hvac do, against the server at KEYWARD_ADDR with the token KEYWARD_TOKEN.

Every call goes through hvac's own methods, which parse the answers and raise by status. A failed expectation ends the
run with a traceback.
"""

import os

import hvac
from hvac import exceptions

ADDRESS = os.environ["KEYWARD_ADDR"]
ROOT = os.environ["KEYWARD_TOKEN"]


def client(token=ROOT):
    return hvac.Client(url=ADDRESS, token=token)


def refused(kind, call, *arguments, **keywords):
    """The call raises exactly this kind of error; comes back with it."""
    try:
        call(*arguments, **keywords)
    except exceptions.VaultError as error:
        assert type(error) is kind, f"{type(error).__name__} came, {kind.__name__} was due: {error}"
        return error
    raise AssertionError(f"{kind.__name__} was due, and nothing was raised")


def status():
    anyone = client(token=None)
    assert anyone.sys.is_initialized()
    assert not anyone.sys.is_sealed()
    seal = anyone.sys.read_seal_status()
    assert seal["initialized"] and not seal["sealed"] and seal["t"] >= 1, seal
    assert anyone.sys.read_health_status(method="GET")["initialized"]
    assert anyone.sys.read_health_status(method="HEAD").status_code == 200
    assert anyone.sys.read_leader_status()["is_self"] in (True, False)
    assert client().is_authenticated()
    assert not client(token="s.nosuchtokennosuchtoken").is_authenticated()


def kv_version_2():
    kv = client().secrets.kv.v2
    made = kv.create_or_update_secret(path="hvac/app", secret={"user": "ada", "pass": "p1"}, cas=0)
    assert made["data"]["version"] == 1
    refused(exceptions.InvalidRequest, kv.create_or_update_secret, path="hvac/app", secret={}, cas=0)
    assert kv.create_or_update_secret(path="hvac/app", secret={"user": "ada", "pass": "p2"}, cas=1)["data"]["version"] == 2

    read = kv.read_secret_version(path="hvac/app", raise_on_deleted_version=True)
    assert read["data"]["data"] == {"user": "ada", "pass": "p2"}
    assert read["data"]["metadata"]["version"] == 2
    assert kv.read_secret_version(path="hvac/app", version=1, raise_on_deleted_version=True)["data"]["data"]["pass"] == "p1"
    refused(exceptions.InvalidPath, kv.read_secret_version, path="hvac/none", raise_on_deleted_version=True)

    assert kv.patch(path="hvac/app", secret={"pass": "p3", "note": "new"})["data"]["version"] == 3
    patched = kv.read_secret(path="hvac/app", raise_on_deleted_version=True)["data"]["data"]
    assert patched == {"user": "ada", "pass": "p3", "note": "new"}, patched
    refused(exceptions.InvalidPath, kv.patch, path="hvac/none", secret={"a": 1})

    kv.delete_latest_version_of_secret(path="hvac/app")
    error = refused(exceptions.InvalidPath, kv.read_secret_version, path="hvac/app", raise_on_deleted_version=True)
    assert error.json["data"]["metadata"]["deletion_time"], "a deleted version answers 404 with its metadata"
    gone = kv.read_secret_version(path="hvac/app", raise_on_deleted_version=False)
    assert gone["data"]["data"] is None
    kv.undelete_secret_versions(path="hvac/app", versions=[3])
    assert kv.read_secret_version(path="hvac/app", raise_on_deleted_version=True)["data"]["data"]["note"] == "new"

    kv.delete_secret_versions(path="hvac/app", versions=[1, 2])
    kv.undelete_secret_versions(path="hvac/app", versions=[2])
    kv.destroy_secret_versions(path="hvac/app", versions=[1])
    versions = kv.read_secret_metadata(path="hvac/app")["data"]["versions"]
    assert versions["1"]["destroyed"] and not versions["2"]["destroyed"]
    assert versions["2"]["deletion_time"] == "" and versions["3"]["deletion_time"] == ""
    refused(exceptions.InvalidPath, kv.read_secret_version, path="hvac/app", version=1, raise_on_deleted_version=True)

    kv.update_metadata(path="hvac/app", max_versions=5, custom_metadata={"owner": "ada"}, delete_version_after="30m")
    metadata = kv.read_secret_metadata(path="hvac/app")["data"]
    assert metadata["max_versions"] == 5 and metadata["custom_metadata"] == {"owner": "ada"}
    assert metadata["delete_version_after"] == "30m0s"

    kv.create_or_update_secret(path="hvac/folder/leaf", secret={"a": 1})
    assert kv.list_secrets(path="hvac")["data"]["keys"] == ["app", "folder/"]
    refused(exceptions.InvalidPath, kv.list_secrets, path="hvac/none")
    kv.configure(max_versions=20, cas_required=False)
    assert kv.read_configuration()["data"]["max_versions"] == 20
    kv.delete_metadata_and_all_versions(path="hvac/app")
    refused(exceptions.InvalidPath, kv.read_secret_metadata, path="hvac/app")


def kv_version_1_and_mounts():
    root = client()
    root.sys.enable_secrets_engine("kv", path="hvac-old", options={"version": "1"}, description="old ways")
    assert root.sys.list_mounted_secrets_engines()["data"]["hvac-old/"]["description"] == "old ways"
    kv = root.secrets.kv.v1
    kv.create_or_update_secret(path="a/b", secret={"n": 7}, mount_point="hvac-old")
    assert kv.read_secret(path="a/b", mount_point="hvac-old")["data"] == {"n": 7}
    assert kv.list_secrets(path="a", mount_point="hvac-old")["data"]["keys"] == ["b"]
    kv.delete_secret(path="a/b", mount_point="hvac-old")
    refused(exceptions.InvalidPath, kv.read_secret, path="a/b", mount_point="hvac-old")

    root.sys.tune_mount_configuration(path="hvac-old", default_lease_ttl="1h", max_lease_ttl="2h")
    tuned = root.sys.read_mount_configuration(path="hvac-old")["data"]
    assert (tuned["default_lease_ttl"], tuned["max_lease_ttl"]) == (3600, 7200)
    kv.create_or_update_secret(path="kept", secret={"n": 1}, mount_point="hvac-old")
    root.sys.move_backend(from_path="hvac-old", to_path="hvac-moved")
    assert kv.read_secret(path="kept", mount_point="hvac-moved")["data"] == {"n": 1}
    root.sys.disable_secrets_engine("hvac-moved")
    assert "hvac-moved/" not in root.sys.list_mounted_secrets_engines()["data"]
    refused(exceptions.InvalidPath, kv.read_secret, path="kept", mount_point="hvac-moved")


def tokens_and_policies():
    root = client()
    text = 'path "secret/data/hvac/mine/*" { capabilities = ["create", "update", "read"] }'
    root.sys.create_or_update_policy(name="hvac-mine", policy=text)
    assert root.sys.read_policy(name="hvac-mine")["data"]["rules"] == text
    assert "hvac-mine" in root.sys.list_policies()["data"]["policies"]
    assert root.sys.read_acl_policy(name="hvac-mine")["data"]["policy"] == text
    assert "hvac-mine" in root.sys.list_acl_policies()["data"]["keys"]

    made = root.auth.token.create(policies=["hvac-mine"], ttl="1h", meta={"team": "blue"}, display_name="flow")
    token = made["auth"]["client_token"]
    accessor = made["auth"]["accessor"]
    limited = client(token)
    self = limited.auth.token.lookup_self()["data"]
    assert self["policies"] == ["default", "hvac-mine"] and self["meta"] == {"team": "blue"}, self
    assert self["display_name"] == "token-flow" and 3590 <= self["ttl"] <= 3600

    kv = limited.secrets.kv.v2
    kv.create_or_update_secret(path="hvac/mine/x", secret={"a": 1})
    assert kv.read_secret_version(path="hvac/mine/x", raise_on_deleted_version=True)["data"]["data"] == {"a": 1}
    refused(exceptions.Forbidden, kv.read_secret_version, path="hvac/other", raise_on_deleted_version=True)
    refused(exceptions.Forbidden, kv.list_secrets, path="hvac/mine")
    found = limited.sys.get_capabilities(paths=["secret/data/hvac/mine/x", "secret/data/hvac/other"])["data"]
    assert found["secret/data/hvac/mine/x"] == ["create", "read", "update"]
    assert found["secret/data/hvac/other"] == ["deny"]

    assert limited.auth.token.renew_self(increment="30m")["auth"]["client_token"] == token
    assert root.auth.token.lookup(token)["data"]["accessor"] == accessor
    assert root.auth.token.lookup_accessor(accessor)["data"]["id"] == ""
    assert accessor in root.auth.token.list_accessors()["data"]["keys"]
    root.auth.token.renew_accessor(accessor, increment="20m")
    child = limited.auth.token
    refused(exceptions.Forbidden, child.create, policies=["hvac-mine"])
    limited.auth.token.revoke_self()
    refused(exceptions.Forbidden, limited.auth.token.lookup_self)

    orphan = root.auth.token.create_orphan(policies=["hvac-mine"], num_uses=1)["auth"]["client_token"]
    once = client(orphan).secrets.kv.v2
    once.read_secret_version(path="hvac/mine/x", raise_on_deleted_version=True)
    refused(exceptions.Forbidden, once.read_secret_version, path="hvac/mine/x", raise_on_deleted_version=True)
    by_accessor = root.auth.token.create(policies=["hvac-mine"])["auth"]
    root.auth.token.revoke_accessor(by_accessor["accessor"])
    refused(exceptions.Forbidden, client(by_accessor["client_token"]).auth.token.lookup_self)
    root.sys.delete_policy(name="hvac-mine")
    assert root.sys.list_policies()["data"]["policies"].count("hvac-mine") == 0


def wrapping():
    root = client()
    root.secrets.kv.v2.create_or_update_secret(path="hvac/wrapped", secret={"pin": "4711"})
    wrapped = root.adapter.get("/v1/secret/data/hvac/wrapped", wrap_ttl="5m")["wrap_info"]
    assert wrapped["ttl"] == 300
    assert client().sys.unwrap(token=wrapped["token"])["data"]["data"] == {"pin": "4711"}
    refused(exceptions.InvalidRequest, client().sys.unwrap, token=wrapped["token"])

    made = root.auth.token.create(policies=["default"], wrap_ttl="1m")["wrap_info"]
    by_itself = client(made["token"]).sys.unwrap()
    assert by_itself["auth"]["policies"] == ["default"]
    assert client(by_itself["auth"]["client_token"]).is_authenticated()

    info = root.sys.wrap(payload={"a": 1}, ttl=60)["wrap_info"]
    assert root.adapter.post("/v1/sys/wrapping/lookup", json={"token": info["token"]})["data"]["creation_ttl"] == 60
    assert root.sys.unwrap(token=info["token"])["data"] == {"a": 1}


def generic():
    root = client()
    root.write("cubbyhole/note", text="mine")
    assert root.read("cubbyhole/note")["data"] == {"text": "mine"}
    assert root.list("cubbyhole")["data"]["keys"] == ["note"]
    root.delete("cubbyhole/note")
    assert root.read("cubbyhole/note") is None
    before = root.sys.get_encryption_key_status()["data"]["term"]
    root.sys.rotate_encryption_key()
    assert root.sys.get_encryption_key_status()["data"]["term"] == before + 1


FLOWS = [status, kv_version_2, kv_version_1_and_mounts, tokens_and_policies, wrapping, generic]

if __name__ == "__main__":
    for flow in FLOWS:
        flow()
        print(f"{flow.__name__}: fine", flush=True)
    print(f"{len(FLOWS)} passed, 0 failed")
