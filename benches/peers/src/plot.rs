//! A bar chart of the rates, on a logarithmic scale.

use std::fmt::Write;

use crate::clients::{self, Client};
use crate::options::Options;
use crate::report::{number, of};
use crate::run::Results;
use crate::work::Work;

const WIDTH: f64 = 1010.0;
const LEFT: f64 = 380.0;
const RIGHT: f64 = 80.0;
const TOP: f64 = 56.0;
const BAR: f64 = 11.0;
const GAP: f64 = 14.0;

/// What is drawn of a work: a client and its rate.
type Bars = Vec<(Client, f64)>;

/// Draws it.
pub(crate) fn svg(options: &Options, results: &Results) -> String {
    let mut groups: Vec<(Work, Bars)> = Vec::new();
    for work in options.works.iter().filter(|work| **work != Work::Idle) {
        let bars: Bars = options
            .clients
            .iter()
            .filter_map(|client| Some((*client, of(results, *work, *client)?.rate)))
            .collect();
        if !bars.is_empty() {
            groups.push((*work, bars));
        }
    }
    let rates = || groups.iter().flat_map(|(_, bars)| bars).map(|(_, rate)| rate.max(1.0).log10());
    let low = rates().fold(f64::INFINITY, f64::min).floor().min(7.0);
    let high = rates().fold(0.0, f64::max).ceil().max(low + 1.0);
    let x = |rate: f64| LEFT + (rate.max(1.0).log10() - low) / (high - low) * (WIDTH - LEFT - RIGHT);

    let mut body = String::new();
    let mut y = TOP;
    for (work, bars) in &groups {
        let mut middle = y - 3.0;
        for (client, rate) in bars {
            middle += BAR / 2.0;
            let (end, text) = (x(*rate), number(*rate));
            let weight = if *client == Client::Lepus { "bold" } else { "normal" };
            puts(
                &mut body,
                format_args!(
                    "<rect x='{LEFT}' y='{y:.1}' width='{:.1}' height='{:.1}' fill='{}'/>\
                     <text x='{:.1}' y='{:.1}' font-size='9.5' font-weight='{weight}'>{text}</text>\n",
                    end - LEFT,
                    BAR - 1.0,
                    color(*client),
                    end + 4.0,
                    y + BAR - 2.5,
                ),
            );
            y += BAR;
        }
        puts(
            &mut body,
            format_args!(
                "<text x='{:.1}' y='{:.1}' text-anchor='end'>{}</text>\n",
                LEFT - 10.0,
                middle + 7.0,
                work.about()
            ),
        );
        y += GAP;
    }

    let mut grid = String::new();
    let mut power = low;
    while power <= high {
        let rate = 10_f64.powf(power);
        let at = x(rate);
        puts(
            &mut grid,
            format_args!(
                "<line x1='{at:.1}' y1='{:.1}' x2='{at:.1}' y2='{y:.1}' stroke='#dddddd'/>\
                 <text x='{at:.1}' y='{:.1}' text-anchor='middle' fill='#777777'>{}</text>\n",
                TOP - 6.0,
                TOP - 10.0,
                tick(rate),
            ),
        );
        power += 1.0;
    }
    let mut at = LEFT;
    for (client, name) in clients::ALL.iter().filter(|(client, _)| options.clients.contains(client)) {
        puts(
            &mut grid,
            format_args!(
                "<rect x='{at:.1}' y='12' width='10' height='10' fill='{}'/>\
                 <text x='{:.1}' y='21'>{name}</text>\n",
                color(*client),
                at + 14.0
            ),
        );
        at += 78.0;
    }
    let height = y + 10.0;
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0}' \
         font-family='system-ui, sans-serif' font-size='11.5' fill='#222222'>\n\
         <rect width='100%' height='100%' fill='white'/>\n\
         <text x='{:.1}' y='21' text-anchor='end'>messages/s, logarithmic</text>\n{grid}{body}</svg>\n",
        LEFT - 10.0
    )
}

fn color(client: Client) -> &'static str {
    match client {
        Client::Floor => "#c9ced6",
        Client::Lepus => "#d9480f",
        Client::LepusMain => "#e8763f",
        Client::LepusCurrentThread => "#f7bd98",
        Client::LepusRobust => "#a8330a",
        Client::Amqprs => "#4c8bd6",
        Client::Lapin => "#8d6cc9",
        Client::RabbitmqC => "#4fa36b",
    }
}

fn tick(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.0} M", rate / 1e6),
        rate if rate >= 1e3 => format!("{:.0} k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

/// Writing to a string cannot fail.
fn puts(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}
