//! The board's registers, and nothing above them: the only module with `unsafe`. Addresses are those of ARM's application note 386
//! (CMSDK peripherals) as QEMU's `mps2-an386` has them. What is safe to call from outside is safe whatever it is called with.
//!
//! | address | what | used for |
//! |---|---|---|
//! | `0x4000_2000` | dual timer, first half, 25 MHz / 256, counting down for ever | the time |
//! | `0x4000_4000` | UART 0 | the console |
//! | `0x4000_5000` | UART 1, interrupt 2 when a byte came | the radio co-processor |
//! | `0x4002_8000` | FPGAIO, two lights | showing which board this is |
//! | `0x4002_f004` | SCC, eight lights | the outputs that commands switch |
//! | `0x2100_0000` | 16 MiB of memory that QEMU keeps in a file | the flash |
//! | SysTick | 25 MHz, 24 bits | waking up |

#![allow(
    unsafe_code,
    reason = "registers are memory that the compiler does not know; each use says why it is sound"
)]

use core::cell::RefCell;
use core::ptr::{read_volatile, write_volatile};

use cortex_m::interrupt::{self, CriticalSection, Mutex};
use cortex_m::peripheral::{NVIC, SCB, SYST};
use cortex_m_rt::exception;
use heapless::Deque;

/// Bytes from the radio that were not taken yet. When it is full, the line waits.
pub const RECEIVED_BYTES_MAX: usize = 512;
/// Bytes that the flash has.
pub const FLASH_BYTES: usize = 16 << 20;
/// Longest command line, in bytes.
pub const COMMAND_LINE_BYTES_MAX: usize = 512;
/// Ticks of the clock in 25 microseconds, times 256.
pub const CLOCK_DIVIDER: u64 = 256;
/// The processor's clock, in MHz.
pub const CORE_MHZ: u64 = 25;
/// SysTick counts so far.
pub const WAKE_TICKS_MAX: u32 = 0x00ff_ffff;

/// The outputs have the numbers below this.
pub const OUTPUTS: u8 = 8;

const FLASH_AT: usize = 0x2100_0000;
const RECEIVE_INTERRUPT: i16 = 2;
const STATE_SEND_FULL: u32 = 1 << 0;
const STATE_RECEIVE_FULL: u32 = 1 << 1;
const CONTROL_SEND: u32 = 1 << 0;
const CONTROL_RECEIVE: u32 = 1 << 1;
const CONTROL_RECEIVE_INTERRUPT: u32 = 1 << 3;
const INTERRUPT_RECEIVED: u32 = 1 << 1;
/// 25 MHz / 217 is 115,207 baud.
const BAUD_DIVIDER: u32 = 217;
/// Enabled, free-running, divided by 256, 32 bits.
const TIMER_RUNNING: u32 = 1 << 7 | 2 << 2 | 1 << 1;
const SYS_OPEN: usize = 0x01;
const SYS_READ: usize = 0x06;
const SYS_SEEK: usize = 0x0a;
/// As `fopen` means "rb".
const OPEN_TO_READ: usize = 1;
const PATH_BYTES_MAX: usize = 256;
const SYS_GET_CMDLINE: usize = 0x15;
const SYS_CLOCK: usize = 0x10;
const SYS_TIME: usize = 0x11;

/// A register of this board. Only this module makes one.
#[derive(Clone, Copy)]
struct Register(usize);

impl Register {
    fn read(self) -> u32 {
        // Sound: each `Register` below is the address of a device register of this board, which is always there and aligned.
        unsafe { read_volatile(self.0 as *const u32) }
    }

    fn write(self, value: u32) {
        // Sound: as above; no register below makes the hardware touch memory.
        unsafe { write_volatile(self.0 as *mut u32, value) }
    }
}

const TIMER_LOAD: Register = Register(0x4000_2000);
const TIMER_VALUE: Register = Register(0x4000_2004);
const TIMER_CONTROL: Register = Register(0x4000_2008);
const SHOWING_LIGHTS: Register = Register(0x4002_8000);
const OUTPUT_LIGHTS: Register = Register(0x4002_f004);

/// One of the CMSDK UARTs.
#[derive(Clone, Copy)]
pub struct Uart {
    data: Register,
    state: Register,
    control: Register,
    interrupt: Register,
    divider: Register,
}

impl Uart {
    const fn at(base: usize) -> Self {
        Self {
            data: Register(base),
            state: Register(base + 4),
            control: Register(base + 8),
            interrupt: Register(base + 12),
            divider: Register(base + 16),
        }
    }

    /// Puts bytes on the line, waiting for it where it is slower.
    pub fn send(self, bytes: &[u8]) {
        for byte in bytes {
            while self.state.read() & STATE_SEND_FULL != 0 {}
            self.data.write(u32::from(*byte));
        }
    }
}

/// The console.
pub const CONSOLE: Uart = Uart::at(0x4000_4000);
/// The line to the radio co-processor.
pub const RADIO: Uart = Uart::at(0x4000_5000);

static RECEIVED: Mutex<RefCell<Deque<u8, RECEIVED_BYTES_MAX>>> = Mutex::new(RefCell::new(Deque::new()));

/// Starts the timer, the UARTs and their interrupt.
pub fn start() {
    TIMER_LOAD.write(u32::MAX);
    TIMER_CONTROL.write(TIMER_RUNNING);
    CONSOLE.divider.write(BAUD_DIVIDER);
    CONSOLE.control.write(CONTROL_SEND);
    RADIO.divider.write(BAUD_DIVIDER);
    RADIO.control.write(CONTROL_SEND | CONTROL_RECEIVE | CONTROL_RECEIVE_INTERRUPT);
    // Sound: the handler of this interrupt shares only `RECEIVED` with the rest, behind a critical section, and no critical
    // section relies on this interrupt being masked by number.
    unsafe { NVIC::unmask(Interrupt) };
}

/// The count of the timer, going down.
pub fn timer_count() -> u32 {
    TIMER_VALUE.read()
}

/// Switches an output; there are no others than [`OUTPUTS`].
pub fn switch_output(output: u8, on: bool) {
    let bit = 1 << (output % OUTPUTS);
    let lights = OUTPUT_LIGHTS.read();
    OUTPUT_LIGHTS.write(if on { lights | bit } else { lights & !bit });
}

/// The outputs that are on, a bit each, as the board has them.
pub fn outputs() -> u32 {
    OUTPUT_LIGHTS.read()
}

/// Switches the two lights that show which board this is.
pub fn show(first: bool, second: bool) {
    SHOWING_LIGHTS.write(u32::from(first) | u32::from(second) << 1);
}

#[derive(Clone, Copy)]
struct Interrupt;

// Sound: the number is that of this board's receive interrupt of UART 1, and always the same.
unsafe impl cortex_m::interrupt::InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        RECEIVE_INTERRUPT.unsigned_abs()
    }
}

/// Takes what the UART has while there is room; what finds none waits on the line.
fn receive(critical: &CriticalSection) {
    let mut received = RECEIVED.borrow(critical).borrow_mut();
    RADIO.interrupt.write(INTERRUPT_RECEIVED);
    while !received.is_full() && RADIO.state.read() & STATE_RECEIVE_FULL != 0 {
        let [byte, ..] = RADIO.data.read().to_le_bytes();
        // There is room, as just asked.
        received.push_back(byte).unwrap_or_default();
    }
}

/// The bytes that came from the radio since the last call, as many as `out` holds; how many.
pub fn take_received(out: &mut [u8]) -> usize {
    interrupt::free(|critical| {
        receive(critical);
        let mut received = RECEIVED.borrow(critical).borrow_mut();
        let mut taken = 0;
        for (place, byte) in out.iter_mut().zip(core::iter::from_fn(|| received.pop_front())) {
            *place = byte;
            taken += 1;
        }
        taken
    })
}

/// Sleeps until a byte comes from the radio, but so many ticks of 40 ns at most; not at all when a byte is there.
pub fn sleep(timer: &mut SYST, ticks: u32) {
    timer.set_reload(ticks.clamp(1, WAKE_TICKS_MAX));
    timer.clear_current();
    timer.enable_interrupt();
    timer.enable_counter();
    interrupt::free(|critical| {
        let empty = RECEIVED.borrow(critical).borrow().is_empty();
        if empty && RADIO.state.read() & STATE_RECEIVE_FULL == 0 {
            // With interrupts held back, one that comes from here on still ends the sleep.
            cortex_m::asm::wfi();
        }
    });
    timer.disable_counter();
}

#[exception]
fn SysTick() {}

#[exception]
unsafe fn DefaultHandler(number: i16) {
    if number == RECEIVE_INTERRUPT {
        interrupt::free(receive);
    } else {
        // Nothing else was asked for.
        SCB::sys_reset();
    }
}

/// A word of the flash; words outside are as if erased.
pub fn flash_word(index: usize) -> u32 {
    match index.checked_mul(4).filter(|offset| *offset < FLASH_BYTES) {
        // Sound: aligned, and inside the memory that the board has there; nothing else has a reference into it.
        Some(offset) => unsafe { read_volatile((FLASH_AT + offset) as *const u32) },
        None => u32::MAX,
    }
}

/// Sets a word of the flash; words outside are left alone.
pub fn set_flash_word(index: usize, word: u32) {
    if let Some(offset) = index.checked_mul(4).filter(|offset| *offset < FLASH_BYTES) {
        // Sound: as in `flash_word`. One word at a time, so that a power cut finds each either old or new.
        unsafe { write_volatile((FLASH_AT + offset) as *mut u32, word) };
    }
}

/// What the debugger gives as the program's arguments.
pub fn command_line(buffer: &mut [u8; COMMAND_LINE_BYTES_MAX]) -> Option<&str> {
    let mut block = [buffer.as_mut_ptr() as usize, buffer.len() - 1];
    // Sound: SYS_GET_CMDLINE reads the two words of the block, writes at most as many bytes as the second says to where the
    // first points, and then the length to the second.
    let failed = unsafe { cortex_m_semihosting::syscall1(SYS_GET_CMDLINE, block.as_mut_ptr() as usize) };
    // Sound: a plain read of what the debugger wrote behind the compiler's back.
    let length = unsafe { read_volatile(&raw const block[1]) };
    let bytes = buffer.get(..length).filter(|_| failed == 0)?;
    core::str::from_utf8(bytes).ok().map(|text| text.trim_end_matches('\0'))
}

/// A file of the host, through the debugger.
#[derive(Debug)]
pub struct HostFile(usize);

impl HostFile {
    /// Opens one to read; `None`: it cannot be, or its path is longer than this takes.
    pub fn open(path: &str) -> Option<Self> {
        let mut text = [0; PATH_BYTES_MAX + 1];
        text.get_mut(..path.len()).filter(|_| path.len() <= PATH_BYTES_MAX)?.copy_from_slice(path.as_bytes());
        let block = [text.as_ptr() as usize, OPEN_TO_READ, path.len()];
        // Sound: SYS_OPEN reads the three words of the block, and the path that they name, with a zero behind it.
        let handle = unsafe { cortex_m_semihosting::syscall1(SYS_OPEN, block.as_ptr() as usize) };
        (handle != usize::MAX).then_some(Self(handle))
    }

    /// Fills `out` from this place on; whether the file has so many bytes there.
    pub fn read_at(&mut self, offset: usize, out: &mut [u8]) -> bool {
        let seek = [self.0, offset];
        let read = [self.0, out.as_mut_ptr() as usize, out.len()];
        // Sound: SYS_SEEK reads the two words of its block; SYS_READ the three of its own, and writes at most as many bytes as the third says
        // to where the second points.
        unsafe {
            cortex_m_semihosting::syscall1(SYS_SEEK, seek.as_ptr() as usize) == 0
                && cortex_m_semihosting::syscall1(SYS_READ, read.as_ptr() as usize) == 0
        }
    }
}

/// Something that differs after each start: the debugger's clocks, since this board has no source of random numbers.
pub fn entropy() -> u64 {
    // Sound: both calls take no argument and answer with a number.
    let (second, hundredths) = unsafe {
        (cortex_m_semihosting::syscall1(SYS_TIME, 0), cortex_m_semihosting::syscall1(SYS_CLOCK, 0))
    };
    let [second, hundredths] =
        [second, hundredths].map(|word| u64::from(u32::from_ne_bytes(word.to_ne_bytes())));
    // SplitMix64: the clocks' few changing bits reach all of the number.
    let mut z = (second << 32 | hundredths << 16) ^ u64::from(timer_count());
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The most that the stack has held since the start, in bytes: below that its paint is untouched.
pub fn stack_bytes() -> usize {
    unsafe extern "C" {
        static _stack_start: u32;
        static _stack_end: u32;
    }
    let (top, bottom) = (&raw const _stack_start as usize, &raw const _stack_end as usize);
    let mut at = bottom;
    // Sound: both ends come from the linker, and what lies between them is RAM that may be read.
    while at < top && unsafe { read_volatile(at as *const u32) } == cortex_m_rt::STACK_PAINT_VALUE {
        at += 4;
    }
    top - at
}
