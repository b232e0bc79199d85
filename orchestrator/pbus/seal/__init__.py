"""Seals of all data in a broker: a keyed MAC, or encryption."""

from pbus.seal.aes_gcm import load_cipher as load_cipher
from pbus.seal.key_seal import FRESH_S as FRESH_S
from pbus.seal.key_seal import NO_SEAL as NO_SEAL
from pbus.seal.key_seal import KeySeal as KeySeal
from pbus.seal.key_seal import Seal as Seal
from pbus.seal.key_seal import is_sealed as is_sealed
from pbus.seal.key_seal import seal_of as seal_of
from pbus.seal.key_text import new_key as new_key
from pbus.seal.key_text import parse_keys as parse_keys
from pbus.seal.seal_text import Kind as Kind
